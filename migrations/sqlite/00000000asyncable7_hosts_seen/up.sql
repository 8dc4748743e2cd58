-- Who was seen when. Locks nothing of the host's.

-- Serves Explain, which asks who works on a model, those heard of last first.
CREATE INDEX asyncable_hosts_model ON asyncable_hosts (model, seen_at);

-- Serves the list of who is alive, and the pruning of those who have not been seen for a week.
CREATE INDEX asyncable_hosts_seen ON asyncable_hosts (seen_at);
