-- Loses the history of failures, never work: running rows wait one retry interval, parked rows run again.
DROP TABLE asyncable_retries;
DROP TABLE asyncable_claims;
