//! The host's tables, as `diesel print-schema` writes them.

diesel::table! {
    higher_level_reviews (id) {
        id -> BigInt,
        veteran_name -> Text,
        file_number -> Text,
        created_by -> Text,
        establishment_submitted_at -> Nullable<Timestamp>,
        establishment_last_submitted_at -> Nullable<Timestamp>,
        establishment_attempted_at -> Nullable<Timestamp>,
        establishment_processed_at -> Nullable<Timestamp>,
        establishment_canceled_at -> Nullable<Timestamp>,
        establishment_error -> Nullable<Text>,
    }
}

diesel::table! {
    supplemental_claims (id) {
        id -> BigInt,
        veteran_name -> Text,
        file_number -> Text,
        created_by -> Text,
        establishment_submitted_at -> Nullable<Timestamp>,
        establishment_last_submitted_at -> Nullable<Timestamp>,
        establishment_attempted_at -> Nullable<Timestamp>,
        establishment_processed_at -> Nullable<Timestamp>,
        establishment_canceled_at -> Nullable<Timestamp>,
        establishment_error -> Nullable<Text>,
    }
}

diesel::table! {
    request_issues (id) {
        id -> BigInt,
        claim -> Text,
        file_number -> Text,
        issue -> Text,
        created_by -> Text,
        decision_sync_submitted_at -> Nullable<Timestamp>,
        decision_sync_last_submitted_at -> Nullable<Timestamp>,
        decision_sync_attempted_at -> Nullable<Timestamp>,
        decision_sync_processed_at -> Nullable<Timestamp>,
        decision_sync_canceled_at -> Nullable<Timestamp>,
        decision_sync_error -> Nullable<Text>,
    }
}

diesel::table! {
    task_timers (id) {
        id -> BigInt,
        claim -> Text,
        fired -> Integer,
        submitted_at -> Nullable<Timestamp>,
        last_submitted_at -> Nullable<Timestamp>,
        attempted_at -> Nullable<Timestamp>,
        processed_at -> Nullable<Timestamp>,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    imports (source) {
        source -> Text,
        filed -> Integer,
    }
}
