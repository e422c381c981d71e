-- Orders and their sum, of five minutes and a currency.
SELECT window_start, window_end, currency, count(*) AS orders, sum(amount) AS total
FROM tumble(orders, INTERVAL 5 MINUTE)
GROUP BY ALL
