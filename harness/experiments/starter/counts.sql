-- Events and their amount, of a minute and a kind. `tumble` leaves out what the watermark made late.
SELECT window_start, window_end, kind, count(*) AS events, sum(amount) AS total
FROM tumble(events, INTERVAL 1 MINUTE)
GROUP BY ALL
