-- Purchases, their sum and their mean of five minutes and a category.
SELECT window_start, window_end, category, count(*) AS transactions, sum(amount) AS total_revenue,
       round(sum(amount)::DECIMAL(38, 8) / count(*)::DECIMAL(18, 0), 4) AS avg_transaction
FROM tumble(purchases, INTERVAL 5 MINUTE)
GROUP BY ALL
