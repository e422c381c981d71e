-- Events and distinct users of a minute, product and category.
SELECT window_start, window_end, product_id, category, count(*) AS view_count, count(DISTINCT user_id) AS unique_users
FROM tumble(clicks, INTERVAL 1 MINUTE)
GROUP BY ALL
