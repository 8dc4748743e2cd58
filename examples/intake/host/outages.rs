//! The outages that the library has kept, for the table at the end. Its tables are read, never written.

use chrono::NaiveDateTime;
use diesel::prelude::*;

use super::Conn;
use crate::outage::{self, Outage};

diesel::table! {
    asyncable_outages (service, since) {
        service -> Text,
        since -> Timestamp,
        until -> Nullable<Timestamp>,
    }
}

diesel::table! {
    asyncable_attempts (model, row_id, attempted_at) {
        model -> Text,
        row_id -> Text,
        attempted_at -> Timestamp,
        ended_at -> Timestamp,
        kind -> Nullable<Text>,
    }
}

type Found = (String, NaiveDateTime, Option<NaiveDateTime>);

/// All of them, the first one first.
pub fn all(conn: &mut Conn) -> QueryResult<Vec<Outage>> {
    use asyncable_attempts as attempts;
    use asyncable_outages as outages;
    let found: Vec<Found> = outages::table
        .order((outages::since, outages::service))
        .select((outages::service, outages::since, outages::until))
        .load(conn)?;
    let outage = |(service, since, until): Found| {
        let spent = attempts::table
            .filter(attempts::model.eq_any(outage::models(&service)))
            .filter(attempts::kind.eq("unavailable"))
            .filter(attempts::ended_at.ge(since))
            .into_boxed();
        let spent = match until {
            Some(until) => spent.filter(attempts::ended_at.le(until)),
            None => spent,
        };
        let attempts = spent.count().get_result(conn)?;
        Ok(Outage { service, since, until, attempts })
    };
    found.into_iter().map(outage).collect()
}
