-- Loses which services are down or held, and what people did; no row and no failure.
DROP INDEX asyncable_retries_unwarned;
ALTER TABLE asyncable_retries DROP COLUMN warned;
DROP TABLE asyncable_actions;
DROP TABLE asyncable_hosts;
DROP TABLE asyncable_outages;
DROP TABLE asyncable_services;
