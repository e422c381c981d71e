-- Periods of one session id that no gap of 30 minutes divides.
SELECT session_id, session_start, session_last AS session_end, count(*) AS event_count,
       epoch_ms(session_last - session_start) / 1000 AS duration_s, 'completed' AS status,
       session_last + INTERVAL 30 MINUTE AS _final, max(_batch) AS _batch
FROM session(clicks, session_id, INTERVAL 30 MINUTE)
GROUP BY session_id, session_start, session_last
