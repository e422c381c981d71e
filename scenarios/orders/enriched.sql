-- dropDuplicatesWithinWatermark on the id, then a join with a table.
SELECT order_id, ordered_at, amount * rate::DECIMAL(8, 4) AS eur, _batch
FROM once(orders, order_id) JOIN rates USING (currency)
