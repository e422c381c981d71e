-- Clicks of five minutes and a product, and those whose first purchase no earlier came within ten minutes.
-- A group holds the clicks of a window and every purchase that can convert them: it is final ten minutes after its end.
WITH clicked AS (
    SELECT * FROM hop(clicks, INTERVAL 15 MINUTE, INTERVAL 5 MINUTE)
    WHERE window_start = start_of(_time, INTERVAL 5 MINUTE)
), bought AS (
    FROM hop(purchases, INTERVAL 15 MINUTE, INTERVAL 5 MINUTE)
)
SELECT c.window_start, c.window_start + INTERVAL 5 MINUTE AS window_end, c.product_id, count(*) AS clicks,
       count(*) FILTER (b._time - c._time <= INTERVAL 10 MINUTE) AS converted, converted / clicks AS rate,
       c.window_start + INTERVAL 15 MINUTE AS _final
FROM clicked c
ASOF LEFT JOIN bought b ON b.window_start = c.window_start AND b.user_id = c.user_id AND b.product_id = c.product_id
                       AND b._time >= c._time
GROUP BY c.window_start, c.product_id
