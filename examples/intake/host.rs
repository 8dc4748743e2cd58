// The host over one kind of connection; `main.rs` includes it once a backend, with `Conn` and `KEY`.

use super::*;

macro_rules! establish {
    ($name:ident, $model:ty) => {
        pub struct $name(Vbms);

        impl Processor for $name {
            type Model = $model;
            const SERVICES: &'static [Service] = &[VBMS];

            async fn process(&self, claim: &$model, attempt: &Attempt) -> Outcome {
                self.0.post("vbms", &claim.file_number, &attempt.idempotency_key()).await
            }
        }
    };
}
establish!(EstablishReview, HigherLevelReview);
establish!(EstablishClaim, SupplementalClaim);

pub struct SyncDecision(Vbms);

impl Processor for SyncDecision {
    type Model = RequestIssue;
    const SERVICES: &'static [Service] = &[BGS];

    async fn process(&self, issue: &RequestIssue, attempt: &Attempt) -> Outcome {
        let key = attempt.idempotency_key();
        // BGS does not honour keys, but can be asked: an earlier attempt's call may have landed.
        if attempt.number() > 1 && self.0.has("bgs", &issue.file_number, &key).await? {
            return Ok(());
        }
        self.0.post("bgs", &issue.file_number, &key).await
    }
}

#[derive(Clone)]
pub struct Fire;

impl Processor for Fire {
    type Model = TaskTimer;

    async fn process(&self, timer: &TaskTimer, attempt: &Attempt) -> Outcome {
        ATTEMPTS.fetch_add(1, Ordering::Relaxed);
        let id = timer.id;
        attempt.when_done(move |conn: &mut Conn| {
            let timer = diesel::update(task_timers::table.find(id));
            timer.set(task_timers::fired.eq(task_timers::fired + 1)).execute(conn).map(drop)
        });
        Ok(())
    }
}

/// Writes a claim and submits its work, in one transaction.
fn file(conn: &mut Conn, now: DateTime<Utc>, claim: &Claim) -> QueryResult<String> {
    conn.transaction(|conn| {
        macro_rules! insert {
            ($table:ident, $model:ty, $short:literal) => {{
                let values = (
                    $table::veteran_name.eq(&claim.veteran_name),
                    $table::file_number.eq(&claim.file_number),
                );
                let insert = diesel::insert_into($table::table).values(values);
                let id: i64 = insert.returning($table::id).get_result(conn)?;
                <$model>::as_of(now).submit(conn, id)?;
                format!("{}-{id}", $short)
            }};
        }
        let name = match claim.kind.as_str() {
            "supplemental_claim" => insert!(supplemental_claims, SupplementalClaim, "sc"),
            _ => insert!(higher_level_reviews, HigherLevelReview, "hlr"),
        };
        for issue in &claim.issues {
            let values = (
                request_issues::claim.eq(&name),
                request_issues::file_number.eq(&claim.file_number),
                request_issues::issue.eq(issue),
            );
            let insert = diesel::insert_into(request_issues::table).values(values);
            let id: i64 = insert.returning(request_issues::id).get_result(conn)?;
            RequestIssue::as_of(now).submit(conn, id)?;
        }
        let insert = diesel::insert_into(task_timers::table).values(task_timers::claim.eq(&name));
        let id: i64 = insert.returning(task_timers::id).get_result(conn)?;
        TaskTimer::as_of(now).submit_at(conn, id, now + TimeDelta::days(1))?;
        Ok(name)
    })
}

/// A claim's status and error code, or nothing.
fn look(conn: &mut Conn, now: DateTime<Utc>, kind: &str, id: i64) -> QueryResult<Option<Row>> {
    macro_rules! look {
        ($table:ident, $model:ty) => {
            $table::table
                .find(id)
                .select(($table::id, <$model>::status().at(now), $table::establishment_error))
                .first::<Row>(conn)
                .optional()
        };
    }
    match kind {
        "sc" => look!(supplemental_claims, SupplementalClaim),
        _ => look!(higher_level_reviews, HigherLevelReview),
    }
}

fn latest(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<Vec<(String, Row)>> {
    macro_rules! latest {
        ($table:ident, $model:ty, $short:literal) => {{
            let rows: Vec<Row> = $table::table
                .order($table::id.desc())
                .limit(25)
                .select(($table::id, <$model>::status().at(now), $table::establishment_error))
                .load(conn)?;
            rows.into_iter().map(|row| (format!("{}-{}", $short, row.0), row)).collect::<Vec<_>>()
        }};
    }
    let mut rows = latest!(higher_level_reviews, HigherLevelReview, "hlr");
    rows.extend(latest!(supplemental_claims, SupplementalClaim, "sc"));
    Ok(rows)
}

/// Rows by model and status; parked ones apart.
fn tally(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<Vec<(&'static str, String, i64, bool)>> {
    let mut all = Vec::new();
    macro_rules! tally {
        ($table:ident, $model:ty) => {
            let rows: Vec<(Status, Option<bool>)> = $table::table
                .select((<$model>::status().at(now), <$model>::parked().at(now)))
                .load(conn)?;
            let mut counts = std::collections::BTreeMap::new();
            for (status, parked) in rows {
                let parked = parked == Some(true);
                let pending = !parked && matches!(status, Status::Submitted | Status::Attempted);
                let name = if parked { "parked".to_owned() } else { status.to_string() };
                *counts.entry((name, pending)).or_insert(0) += 1;
            }
            all.extend(counts.into_iter().map(|((s, pending), n)| (stringify!($table), s, n, pending)));
        };
    }
    tally!(higher_level_reviews, HigherLevelReview);
    tally!(supplemental_claims, SupplementalClaim);
    tally!(request_issues, RequestIssue);
    tally!(task_timers, TaskTimer);
    Ok(all)
}

/// Processed rows that their service knows nothing of, and timers that did not fire exactly once.
fn lost(conn: &mut Conn, ledger: &services::Ledger) -> QueryResult<usize> {
    let known = |service: &str, model: &str, id: i64| {
        let key = format!("{model}/{id}/");
        ledger.effects.keys().any(|(by, of)| by == service && of.starts_with(&key))
    };
    let mut lost = 0;
    let ids: Vec<i64> = higher_level_reviews::table.filter(HigherLevelReview::processed()).select(higher_level_reviews::id).load(conn)?;
    lost += ids.iter().filter(|id| !known("vbms", "higher_level_reviews", **id)).count();
    let ids: Vec<i64> = supplemental_claims::table.filter(SupplementalClaim::processed()).select(supplemental_claims::id).load(conn)?;
    lost += ids.iter().filter(|id| !known("vbms", "supplemental_claims", **id)).count();
    let ids: Vec<i64> = request_issues::table.filter(RequestIssue::processed()).select(request_issues::id).load(conn)?;
    lost += ids.iter().filter(|id| !known("bgs", "request_issues", **id)).count();
    let timers: i64 = task_timers::table.filter(TaskTimer::processed()).filter(task_timers::fired.ne(1)).count().get_result(conn)?;
    Ok(lost + usize::try_from(timers).unwrap_or(0))
}

fn keep_time(conn: &mut Conn, now: DateTime<Utc>) -> QueryResult<()> {
    let clock = diesel::update(intake_clock::table).set(intake_clock::now.eq(now.naive_utc()));
    if clock.execute(conn)? == 0 {
        let first = (intake_clock::id.eq(1), intake_clock::now.eq(now.naive_utc()));
        diesel::insert_into(intake_clock::table).values(first).execute(conn)?;
    }
    Ok(())
}

#[derive(Clone)]
struct Shared {
    url: String,
    clock: Clock,
    handle: Handle,
}

impl Shared {
    /// Asks the database on a blocking thread.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Conn, DateTime<Utc>) -> QueryResult<T> + Send + 'static,
    ) -> actix_web::Result<T> {
        let (url, now) = (self.url.clone(), self.clock.now());
        let asked = web::block(move || -> Result<T, BoxError> { Ok(ask(&mut open(&url)?, now)?) });
        asked.await?.map_err(actix_web::error::ErrorServiceUnavailable)
    }

    fn wake(&self) {
        self.handle.wake::<HigherLevelReview>();
        self.handle.wake::<SupplementalClaim>();
        self.handle.wake::<RequestIssue>();
    }
}

fn open(url: &str) -> Result<Conn, BoxError> {
    let mut conn = Conn::establish(url)?;
    conn.batch_execute(SETUP)?;
    Ok(conn)
}

async fn post_claim(body: web::Bytes, request: HttpRequest, shared: web::Data<Shared>) -> actix_web::Result<HttpResponse> {
    let form = request.content_type() == "application/x-www-form-urlencoded";
    let claim = match Claim::read(&body, form) {
        Ok(claim) => claim,
        Err(why) => return Ok(HttpResponse::BadRequest().json(serde_json::json!({ "error": why }))),
    };
    let name = shared.ask(move |conn, now| file(conn, now, &claim)).await?;
    shared.wake();
    if form {
        return Ok(HttpResponse::SeeOther().insert_header(("location", "/")).finish());
    }
    Ok(HttpResponse::Created().json(serde_json::json!({ "id": name, "status": format!("/claims/{name}") })))
}

async fn get_claim(name: web::Path<String>, shared: web::Data<Shared>) -> actix_web::Result<HttpResponse> {
    let named = name.split_once('-').and_then(|(kind, id)| Some((kind.to_owned(), id.parse::<i64>().ok()?)));
    let Some((kind, id)) = named.filter(|(kind, _)| kind == "hlr" || kind == "sc") else {
        let why = "a claim's id reads hlr-1 or sc-1";
        return Ok(HttpResponse::BadRequest().json(serde_json::json!({ "error": why })));
    };
    Ok(match shared.ask(move |conn, now| look(conn, now, &kind, id)).await? {
        Some((_, status, error)) => {
            let code = error.as_deref().and_then(|error| error.split(' ').next());
            HttpResponse::Ok().json(serde_json::json!({ "id": *name, "status": status.as_str(), "error": code }))
        }
        None => HttpResponse::NotFound().json(serde_json::json!({ "error": "no such claim" })),
    })
}

async fn page(shared: web::Data<Shared>) -> actix_web::Result<HttpResponse> {
    let rows = shared.ask(latest).await?;
    let rows: String = rows
        .iter()
        .map(|(name, (_, status, error))| {
            let code = error.as_deref().and_then(|error| error.split(' ').next()).unwrap_or_default();
            format!("<tr><th scope=row><a href=\"/claims/{name}\">{name}</a><td>{status}<td>{}", escaped(code))
        })
        .collect();
    let now = shared.clock.now().format("%a %d %b %H:%M");
    let page = PAGE.replace("{now}", &now.to_string()).replace("{rows}", &rows);
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page))
}

pub async fn run(args: &Args) -> Result<bool, BoxError> {
    let mut conn = open(&args.url).map_err(|error| format!("cannot open the database: {error}"))?;
    asyncable::migrate(&mut conn)?;
    conn.batch_execute(&ddl().replace("{key}", KEY))?;
    let kept: Option<chrono::NaiveDateTime> = intake_clock::table.select(intake_clock::now).first(&mut conn).optional()?;
    let from = kept.map_or_else(Utc::now, |kept| kept.and_utc());
    let clock = Clock::fast(args.speed, from);
    let ledger = services::Ledger::open(args.ledger())?;
    let world = Arc::new(services::World { ledger: Mutex::new(ledger), clock: clock.clone(), began: from, seed: args.seed });
    let base = services::start(world.clone())?;
    let vbms = move || Vbms { client: awc::Client::default(), base: base.clone() };
    let (one, two, three) = (vbms.clone(), vbms.clone(), vbms);
    let handle = Supervisor::<Conn>::connecting({
        let url = args.url.clone();
        move || open(&url).map_err(|error| diesel::ConnectionError::BadConnection(error.to_string()))
    })
    .clock(clock.clone())
    .sweep_every(Duration::from_millis(100))
    .lease_for(Duration::from_secs(5))
    .processor_with(move || EstablishReview(one()))
    .processor_with(move || EstablishClaim(two()))
    .processor_with(move || SyncDecision(three()))
    .processor(Fire)
    .start()?;
    let shared = Shared { url: args.url.clone(), clock: clock.clone(), handle: handle.clone() };
    let data = web::Data::new(shared.clone());
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .route("/", web::get().to(page))
            .route("/claims", web::post().to(post_claim))
            .route("/claims/{id}", web::get().to(get_claim))
    })
    .workers(1)
    .disable_signals()
    .bind(("127.0.0.1", args.port))
    .map_err(|error| format!("cannot listen on port {}: {error}", args.port))?;
    println!("intake: http://{}", server.addrs().first().map(ToString::to_string).unwrap_or_default());
    let server = server.run();
    let web = server.handle();
    actix_rt::spawn(server);
    for claim in &args.claims {
        file(&mut conn, clock.now(), claim)?;
    }
    shared.wake();
    let mut ticks = actix_rt::time::interval(Duration::from_millis(500));
    let stop = actix_rt::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut stop => break,
        }
        keep_time(&mut conn, clock.now())?;
        let pending = tally(&mut conn, clock.now())?.iter().filter(|row| row.3).map(|row| row.2).sum::<i64>();
        if args.until_idle && pending == 0 {
            break;
        }
    }
    web.stop(true).await;
    handle.shutdown(Duration::from_secs(10)).await;
    keep_time(&mut conn, clock.now())?;
    println!("{:<24}{:<16}{:>8}", "model", "status", "rows");
    for (model, status, rows, _) in tally(&mut conn, clock.now())? {
        println!("{model:<24}{status:<16}{rows:>8}");
    }
    let ledger = world.ledger.lock().map_err(|_| "a service panicked")?;
    println!("\nattempts in this run: {}", ATTEMPTS.load(Ordering::Relaxed));
    for service in ["vbms", "bgs"] {
        let effects: Vec<u32> = ledger.effects.iter().filter(|(key, _)| key.0 == service).map(|(_, n)| *n).collect();
        let doubled = effects.iter().filter(|n| **n > 1).count();
        let calls = ledger.calls.get(service).copied().unwrap_or(0);
        println!("{service}: {calls} calls in this run, {} effects, {doubled} doubled", effects.len());
    }
    let lost = lost(&mut conn, &ledger)?;
    println!("lost: {lost}");
    Ok(lost == 0)
}
