-- Each record that the contract refuses, as it is.
SELECT topic, _partition AS partition, _offset AS "offset", value, reason, _batch
FROM rejected
