//! Background work for Diesel rows.

mod asyncable;
mod columns;
mod migrate;
mod retry;
mod scope;
mod service;
mod store;

pub use crate::{
    asyncable::{AsOf, Asyncable, Key, Stored},
    columns::Columns,
    migrate::{MigrateError, migrate, revert},
    retry::RetryPolicy,
    scope::{OldestFirst, Scope, Status, StatusOf},
    service::Service,
    store::{Dialect, StoreConnection},
};
