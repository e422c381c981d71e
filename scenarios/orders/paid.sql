-- Orders left outer join payments of the next fifteen minutes: a match appears with the later of the two,
-- an order without one once the watermark is beyond its bound.
SELECT o.order_id, ordered_at, amount, payment_id, paid_at,
       CASE WHEN payment_id IS NOT NULL THEN greatest(o._batch, p._batch) END AS _batch,
       CASE WHEN payment_id IS NULL THEN passed(ordered_at + INTERVAL 15 MINUTE) END AS _final
FROM on_time(orders) o
LEFT JOIN on_time(payments) p
  ON p.order_id = o.order_id AND paid_at BETWEEN ordered_at AND ordered_at + INTERVAL 15 MINUTE
