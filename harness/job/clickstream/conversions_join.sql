-- The same rows from a left outer join: an event is late by its own time.
-- The join lets the watermark on to the aggregation only as far as it can no longer emit a click.
SELECT start_of(c._time, INTERVAL 5 MINUTE) AS window_start, window_start + INTERVAL 5 MINUTE AS window_end,
       c.product_id, count(*) AS clicks, count(*) FILTER (b._time - c._time <= INTERVAL 10 MINUTE) AS converted,
       converted / clicks AS rate, passed(window_start + INTERVAL 15 MINUTE) AS _final
FROM on_time(clicks) c
ASOF LEFT JOIN on_time(purchases) b ON b.user_id = c.user_id AND b.product_id = c.product_id AND b._time >= c._time
GROUP BY window_start, c.product_id
