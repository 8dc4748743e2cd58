//! What was done in an hour, and which rows failed in it.

use chrono::{DateTime, Utc};
use maud::{Markup, html};

use super::{encoded, model_address, page, row_address, service_address, time};
use crate::{
    dashboard::{
        answer::Around,
        handlers::hour::{Past, next_of},
        words,
    },
    store::{buckets::Bucket, tries::Hour},
};

/// The address of an hour that begins then.
pub(crate) fn hour_address(base: &str, from: DateTime<Utc>) -> String {
    format!("{base}/hours/{}", encoded(&from.format("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

pub(crate) fn hour(around: &Around, past: &Past) -> Markup {
    let (from, models) = (past.from, &past.models);
    let outages: Vec<_> = past.outages(&around.house).collect();
    let title = format!("An hour from {}", words::short(from));
    let main = html! {
        div class="page-head" { h1 { "An hour from " (time(from)) } }
        @if !outages.is_empty() {
            section class="sec first" aria-labelledby="outages" {
                h2 id="outages" { "Outages" }
                div class="stack" { @for outage in outages {
                    p {
                        a href=(service_address(&around.base, &outage.service)) { (outage.service) }
                        " was down from " (time(outage.since))
                        @if let Some(until) = outage.until { " to " (time(until)) } @else { " on, and still is" } "."
                    }
                } }
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
    let Bucket { finished, failed, waiting } = hour.total();
    html! {
        tr {
            th scope="row" { a href=(model_address(&around.base, hour.model)) { (around.label(hour.model)) } }
            td class="num" data-l="Finished" { (finished) }
            td class="num" data-l="Failed" { (failed) }
            td class="num" data-l="Waiting" { (waiting) }
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
                    @if let Some(next) = next_of(hour) {
                        p { a class="btn" rel="next" href=(format!("{}?model={}&after={}", hour_address(&around.base, from), encoded(hour.model), encoded(&next))) { "Next page of " (label) } }
                    }
                }
            }
        }
    }
}
