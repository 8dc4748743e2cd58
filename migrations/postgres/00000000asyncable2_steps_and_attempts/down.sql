-- Loses the history of attempts, and which steps are done: rows that are not done call their services
-- again, under the same keys.
DROP INDEX asyncable_retries_submitted;
ALTER TABLE asyncable_retries DROP COLUMN crashes;
DROP TABLE asyncable_attempts;
DROP TABLE asyncable_steps;
