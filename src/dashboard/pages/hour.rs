//! What was done in an hour, and which rows failed in it.

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use super::{encoded, model_address, page, row_address, service_address, time};
use crate::{
    dashboard::{answer::Around, words},
    store::{bulk, tries::Hour},
};

/// The address of an hour that begins then.
pub(crate) fn hour_address(base: &str, from: DateTime<Utc>) -> String {
    format!("{base}/hours/{}", encoded(&from.format("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

pub(crate) fn hour(around: &Around, from: DateTime<Utc>, models: &[Hour]) -> Markup {
    let until = from + TimeDelta::hours(1);
    let outages = around.house.outages.iter();
    let outages: Vec<_> = outages
        .filter(|outage| outage.since < until && outage.until.is_none_or(|at| at > from))
        .collect();
    let title = format!("From {} on, an hour", words::short(from));
    let main = html! {
        div class="page-head" { h1 { "From " (time(from)) " on, an hour" } }
        @for outage in outages {
            p class="only" {
                a href=(service_address(&around.base, &outage.service)) { (outage.service) }
                " was down from " (time(outage.since))
                @if let Some(until) = outage.until { " to " (time(until)) } @else { " on, and still is" } "."
            }
        }
        section class="sec" aria-labelledby="done" {
            h2 id="done" { "Done" }
            table class="counts" {
                caption class="vh" { "Rows finished, attempts failed and rows waiting at most, by model" }
                thead { tr {
                    th scope="col" { "Model" } th scope="col" class="num" { "Finished" }
                    th scope="col" class="num" { "Failed" } th scope="col" class="num" { "Waiting" }
                } }
                tbody { @for hour in models { (done(around, hour)) } }
            }
        }
        @for hour in models { (ended(around, from, hour)) }
    };
    page(around, &title, "", &main)
}

fn done(around: &Around, hour: &Hour) -> Markup {
    let buckets = || hour.buckets.iter();
    html! {
        tr {
            th scope="row" { a href=(model_address(&around.base, hour.model)) { (around.label(hour.model)) } }
            td class="num" data-l="Finished" { (buckets().map(|bucket| bucket.finished).sum::<u64>()) }
            td class="num" data-l="Failed" { (buckets().map(|bucket| bucket.failed).sum::<u64>()) }
            td class="num" data-l="Waiting" { (buckets().map(|bucket| bucket.waiting).max().unwrap_or(0)) }
        }
    }
}

fn ended(around: &Around, from: DateTime<Utc>, hour: &Hour) -> Markup {
    let (label, id) = (around.label(hour.model), format!("ended-{}", hour.model));
    html! {
        section class="sec" aria-labelledby=(id) {
            h2 id=(id) { (label) }
            @if hour.ended.is_empty() {
                p class="only muted" { "No attempt failed, and none ended earlier failures. What is done at the first try leaves no line here." }
            } @else {
                div class="stack" {
                    p { @for (index, (outcome, code, count)) in hour.causes.iter().enumerate() {
                        @if index > 0 { ", " }
                        span class="n" { (words::count(*count)) } " " (outcome) @if let Some(code) = code { " (" code { (code) } ")" }
                    } }
                    table {
                        caption class="vh" { "Attempts of " (label) " that failed or ended failures, the first one first" }
                        thead { tr { th scope="col" { "Row" } th scope="col" { "Ended" } th scope="col" { "Outcome" } th scope="col" { "Cause" } } }
                        tbody {
                            @for ended in &hour.ended {
                                tr {
                                    th scope="row" { a href=(row_address(&around.base, hour.model, &ended.row_id)) { (around.row_name(hour.model, &ended.row_id)) } }
                                    td data-l="Ended" { (time(ended.at)) }
                                    td data-l="Outcome" { (ended.outcome) }
                                    td data-l="Cause" { @if let Some(code) = &ended.code { code { (code) } } }
                                }
                            }
                        }
                    }
                    @if let Some(next) = &hour.next {
                        @let place = encoded(&bulk::place(&vec![Some(next.clone())]));
                        p { a class="btn" rel="next" href=(format!("{}?model={}&after={place}", hour_address(&around.base, from), encoded(hour.model))) { "Next page of " (label) } }
                    }
                }
            }
        }
    }
}
