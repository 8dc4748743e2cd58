DROP TABLE imports;
DROP TABLE task_timers;
DROP TABLE request_issues;
DROP TABLE supplemental_claims;
DROP TABLE higher_level_reviews;
