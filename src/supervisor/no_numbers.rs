//! In place of `numbers` without the feature `metrics`: nothing is told, counted or asked.

use std::time::Duration;

use actix::Addr;

use super::pump::Ended;
use crate::{
    Service,
    asyncable::Stored,
    store::{StoreConnection, actor::Store, service::Standing, turn::Turned},
};

pub(crate) fn describe() {}

pub(crate) fn attempt(_: &'static str, _: &Ended, _: Duration) {}

pub(crate) fn turn<K, R>(_: &'static str, _: &Result<Turned<K, R>, String>, _: Duration) {}

pub(crate) fn swept(_: &'static str, _: &[Service], _: Option<&Standing>, _: usize) {}

pub(crate) fn service(_: &[Service], _: &str, _: bool) {}

pub(crate) fn count<M, C>(_: &Addr<Store<C>>)
where
    C: StoreConnection,
    M: Stored<C::Backend>,
{
}
