//! Asks for the rules and for the quotas, again and again.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use super::{client::Client, rule::Report, rules::Rules, sampler::XraySampler};
use crate::telemetry::{
    event::{Sink, TelemetryEvent},
    settings::XrayRules,
};

const GET_RULES: &str = "/GetSamplingRules";
/// The path of `GetSamplingTargets`.
const GET_TARGETS: &str = "/SamplingTargets";
/// How often statistics are reported, and quotas asked for, unless X-Ray says otherwise.
const TARGETS: Duration = Duration::from_secs(10);
/// How soon rules are asked for again that could not be had: the service may start after this one.
const RETRY: Duration = Duration::from_secs(10);
/// The longest pause; an `Instant` cannot hold every one.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The most statistics in a call, by the API.
const MOST_REPORTS: usize = 25;
/// The most pages of rules; a service that is broken may have no last one.
const MOST_PAGES: usize = 50;

/// What has the rules.
pub(crate) trait RuleService {
    /// Posts `body` and returns the answer; an error is one line.
    fn call(
        &self,
        path: &'static str,
        body: Json,
    ) -> impl Future<Output = Result<Json, String>> + Send;
}

/// Keeps the rules up to date.
#[derive(Debug)]
pub(crate) struct Poller<S> {
    rules: Arc<Rules>,
    service: S,
    polling_interval: Duration,
    events: Sink,
    /// The name of this process for X-Ray.
    client_id: String,
    /// The rules are those of this time, in seconds since 1970.
    as_of: f64,
    /// Whether the last call failed, of each of the two.
    failed: [bool; 2],
    /// Whether the rules were said to be available.
    said: Option<bool>,
    /// Whether the log has a line about statistics that X-Ray did not take.
    said_unprocessed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Rules,
    Targets,
}

impl Poller<Client> {
    pub(crate) fn new(sampler: XraySampler, from: &XrayRules, events: Sink) -> Self {
        let client = Client::new(&from.endpoint);
        Self::of(sampler.0, client, from.polling_interval, events)
    }
}

impl<S: RuleService> Poller<S> {
    fn of(rules: Arc<Rules>, service: S, polling_interval: Duration, events: Sink) -> Self {
        let id = RandomIdGenerator::default().new_trace_id().to_string();
        Self {
            rules,
            service,
            polling_interval,
            events,
            client_id: id[..24].to_owned(),
            as_of: 0.0,
            failed: [false; 2],
            said: None,
            said_unprocessed: false,
        }
    }

    /// Runs for ever, on the I/O thread.
    pub(crate) async fn run(mut self) {
        let mut rules_at = Instant::now();
        let mut targets_at = rules_at + jittered(TARGETS);
        loop {
            sleep_until(rules_at.min(targets_at)).await;
            if Instant::now() >= rules_at {
                let refreshed = self.refresh().await;
                let pause = match &refreshed {
                    Ok(()) => self.polling_interval,
                    Err(_) => self.polling_interval.min(RETRY),
                };
                self.note(Call::Rules, refreshed);
                rules_at = Instant::now() + jittered(pause);
            }
            if Instant::now() >= targets_at {
                if self.report().await {
                    rules_at = Instant::now();
                }
                let pause = self.rules.interval().unwrap_or(TARGETS);
                targets_at = Instant::now() + jittered(pause);
            }
        }
    }

    /// Asks for the rules.
    async fn refresh(&mut self) -> Result<(), String> {
        let as_of = unix();
        let mut records = Vec::new();
        let mut page = Json::Null;
        for _ in 0..MOST_PAGES {
            let mut answer = self
                .service
                .call(GET_RULES, json!({ "NextToken": page }))
                .await?;
            records.append(list(&mut answer, "SamplingRuleRecords", GET_RULES)?);
            page = answer["NextToken"].take();
            if page.as_str().is_none_or(str::is_empty) {
                break;
            }
        }
        self.rules.replace(&records);
        self.as_of = self.as_of.max(as_of);
        Ok(())
    }

    /// Reports statistics and asks for quotas; whether the rules are to be asked for at once.
    async fn report(&mut self) -> bool {
        let reports = self.rules.reports();
        let mut is_outdated = false;
        for some in reports.chunks(MOST_REPORTS) {
            let body = self.documents(some);
            let mut answer = self.service.call(GET_TARGETS, body).await;
            let taken = match &mut answer {
                Ok(answer) => self.take(some, answer),
                Err(error) => Err(mem::take(error)),
            };
            let failed = taken.is_err();
            is_outdated |= *taken.as_ref().unwrap_or(&false);
            self.note(Call::Targets, taken.map(drop));
            if failed {
                break;
            }
        }
        is_outdated
    }

    fn documents(&self, reports: &[Report]) -> Json {
        let now = unix() as u64;
        let document = |report: &Report| {
            json!({
                "ClientID": self.client_id,
                "RuleName": report.rule,
                "Timestamp": now,
                "RequestCount": report.requests,
                "SampledCount": report.sampled,
                "BorrowCount": report.borrowed,
            })
        };
        let documents: Vec<_> = reports.iter().map(document).collect();
        json!({ "SamplingStatisticsDocuments": documents })
    }

    /// Takes the answer to `reports`; whether there are other rules than those that are known.
    fn take(&mut self, reports: &[Report], answer: &mut Json) -> Result<bool, String> {
        let targets = mem::take(list(answer, "SamplingTargetDocuments", GET_TARGETS)?);
        self.rules.allot(&targets, unix());
        let modified = answer["LastRuleModification"].as_f64().unwrap_or(0.0);
        // Another clock than ours has this time, which may be ahead.
        let mut is_outdated = modified > self.as_of;
        self.as_of = self.as_of.max(modified);
        let unprocessed = answer["UnprocessedStatistics"].as_array();
        let unprocessed = unprocessed.map_or(&[][..], Vec::as_slice);
        // The statistics of a rule that the service could not take now are reported once more.
        let failed: Vec<_> = unprocessed.iter().filter(|it| has_code(it, '5')).collect();
        let taken = |report: &&Report| !failed.iter().any(|it| it["RuleName"] == *report.rule);
        self.rules.reported(reports.iter().filter(taken));
        if let Some(failed) = failed.first() {
            return Err(format!(
                "{GET_TARGETS}: statistics were not processed: {failed}"
            ));
        }
        if let Some(refused) = unprocessed.first() {
            // The rule is unknown there, for example.
            is_outdated |= has_code(refused, '4');
            if !mem::replace(&mut self.said_unprocessed, true) {
                tracing::warn!(%refused, "X-Ray has not processed statistics of a sampling rule");
            }
        }
        Ok(is_outdated)
    }

    /// Says when rules become available or are so no more.
    fn note(&mut self, call: Call, result: Result<(), String>) {
        self.failed[call as usize] = result.is_err();
        match result {
            Err(error) if self.said != Some(false) => {
                self.said = Some(false);
                let event = TelemetryEvent::SamplingRulesUnavailable { error };
                self.events.emit(&event);
            }
            Ok(()) if self.said != Some(true) && self.failed == [false; 2] => {
                self.said = Some(true);
                let count = self.rules.count();
                let event = TelemetryEvent::SamplingRulesAvailable { count };
                self.events.emit(&event);
            }
            _ => {}
        }
    }
}

/// A list in an answer of a call.
fn list<'a>(answer: &'a mut Json, key: &str, path: &str) -> Result<&'a mut Vec<Json>, String> {
    let list = answer.get_mut(key).and_then(Json::as_array_mut);
    list.ok_or_else(|| format!("{path}: the answer has no {key}"))
}

fn has_code(unprocessed: &Json, digit: char) -> bool {
    let code = unprocessed["ErrorCode"].as_str().unwrap_or_default();
    code.starts_with(digit)
}

/// Up to 1 % more, so that the processes of a fleet do not ask at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    pause.min(LONGEST_PAUSE).mul_f64(1.0 + random / 100.0)
}

/// Seconds since 1970.
fn unix() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use opentelemetry::{KeyValue, trace::TraceId};
    use opentelemetry_sdk::Resource;
    use tokio::time::sleep;

    use super::*;

    type Answer = Box<dyn FnMut(&'static str, &Json) -> Option<Result<Json, String>> + Send>;

    /// Answers as it is told, or never. Time is tokio's, which passes at once where all wait.
    struct Fake {
        answer: Mutex<Answer>,
        calls: Arc<Mutex<Vec<(Duration, &'static str, Json)>>>,
        started: Instant,
    }

    impl RuleService for Fake {
        async fn call(&self, path: &'static str, body: Json) -> Result<Json, String> {
            let when = self.started.elapsed();
            lock(&self.calls).push((when, path, body.clone()));
            let answer = lock(&self.answer)(path, &body);
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    struct Running {
        rules: Arc<Rules>,
        calls: Arc<Mutex<Vec<(Duration, &'static str, Json)>>>,
        events: Arc<Mutex<Vec<String>>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Running {
        /// When the calls of this path were made, in seconds.
        fn seconds(&self, path: &str) -> Vec<u64> {
            let calls = lock(&self.calls);
            let of_path = calls.iter().filter(|(_, called, _)| *called == path);
            of_path.map(|(when, ..)| when.as_secs()).collect()
        }

        fn last(&self, path: &str) -> Json {
            let calls = lock(&self.calls);
            let mut of_path = calls.iter().filter(|(_, called, _)| *called == path);
            of_path.next_back().unwrap().2["SamplingStatisticsDocuments"].clone()
        }

        fn events(&self) -> Vec<String> {
            std::mem::take(&mut *lock(&self.events))
        }

        /// How many of so many requests for a path are sampled.
        fn sampled(&self, path: &'static str, requests: usize) -> usize {
            let attributes = [KeyValue::new("url.path", path)];
            // No ratio takes this id but that of all.
            let id = TraceId::from(u128::MAX);
            (0..requests)
                .filter(|_| self.rules.sample(id, &attributes))
                .count()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn start(
        answer: impl FnMut(&'static str, &Json) -> Option<Result<Json, String>> + Send + 'static,
    ) -> Running {
        let rules = Rules::new(&Resource::builder_empty().build());
        let calls = Arc::<Mutex<Vec<_>>>::default();
        let events = Arc::<Mutex<Vec<_>>>::default();
        let service = Fake {
            answer: Mutex::new(Box::new(answer)),
            calls: calls.clone(),
            started: Instant::now(),
        };
        let said = events.clone();
        let sink = Sink::new(move |event| lock(&said).push(event.to_string()));
        let poller = Poller::of(rules.clone(), service, Duration::from_secs(300), sink);
        Running {
            rules,
            calls,
            events,
            task: tokio::spawn(poller.run()),
        }
    }

    fn rule(name: &str, priority: u32, path: &str) -> Json {
        json!({"SamplingRule": {
            "RuleName": name, "Version": 1, "Priority": priority, "FixedRate": 0.0, "ReservoirSize": 5,
            "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": path,
            "ResourceARN": "*", "Attributes": {},
        }})
    }

    fn rules(of: &[Json]) -> Option<Result<Json, String>> {
        Some(Ok(json!({ "SamplingRuleRecords": of, "NextToken": null })))
    }

    async fn seconds(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn rules_come_every_five_minutes_and_targets_every_ten_seconds() {
        let running = start(|path, body| match path {
            GET_RULES => rules(&[
                rule("all", 10_000, "*"),
                rule("b", 2, "/slow*"),
                rule("a", 2, "/slow*"),
            ]),
            _ => {
                let documents = &body["SamplingStatisticsDocuments"];
                assert_eq!(documents.as_array().map(Vec::len), Some(1), "{documents}");
                let target = json!({
                    "RuleName": "a", "FixedRate": 0.0, "ReservoirQuota": 3, "Interval": 20,
                    "ReservoirQuotaTTL": unix() + 60.0,
                });
                Some(Ok(
                    json!({"SamplingTargetDocuments": [target], "LastRuleModification": 1.0}),
                ))
            }
        });
        seconds(1).await;
        assert_eq!(
            running.events(),
            ["X-Ray's sampling rules are known: 3 may apply"]
        );
        assert_eq!(running.sampled("/slow/1", 4), 1, "borrowed");
        seconds(10).await;
        // The first name of the same priority.
        let documents = running.last(GET_TARGETS);
        let client = documents[0]["ClientID"].as_str().unwrap().to_owned();
        assert!(
            client.len() == 24 && client.chars().all(|c| c.is_ascii_hexdigit()),
            "{client}"
        );
        let timestamp = documents[0]["Timestamp"].as_u64().unwrap();
        assert!(timestamp.abs_diff(unix() as u64) < 60);
        let expected = json!([{
            "ClientID": client, "RuleName": "a", "Timestamp": timestamp, "RequestCount": 4, "SampledCount": 1,
            "BorrowCount": 1,
        }]);
        assert_eq!(documents, expected);
        assert_eq!(running.sampled("/slow/2", 9), 3, "the quota");
        // X-Ray has asked for longer pauses.
        seconds(15).await;
        assert_eq!(running.seconds(GET_TARGETS), [10]);
        seconds(10).await;
        assert_eq!(running.seconds(GET_TARGETS), [10, 30]);
        assert_eq!(running.last(GET_TARGETS)[0]["BorrowCount"], 0);
        // Nothing to report, nothing asked.
        seconds(275).await;
        assert_eq!(running.seconds(GET_TARGETS), [10, 30]);
        assert_eq!(running.seconds(GET_RULES).len(), 2);
        assert!((300..=303).contains(&running.seconds(GET_RULES)[1]));
        assert_eq!(running.events(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_rules_one_a_second_is_sampled_at_once() {
        let running = start(|_, _| None);
        assert_eq!(running.sampled("/", 9), 1);
        seconds(1).await;
        assert_eq!(running.sampled("/", 9), 1);
        let five_percent = |n: u64| {
            running
                .rules
                .sample(TraceId::from(u128::from(n) << 40), &[])
        };
        seconds(1).await;
        let sampled = (0..1 << 24)
            .step_by(1 << 10)
            .filter(|n| five_percent(*n))
            .count();
        assert!((700..1000).contains(&sampled), "{sampled} of 16384");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_said_once_and_asked_about_again_soon() {
        let mut answers = vec![
            Some(Err("refused".to_owned())),
            Some(Ok(json!([]))),
            Some(Ok(json!({"SamplingRuleRecords": "none"}))),
            rules(&[rule("all", 1, "*")]),
        ];
        answers.reverse();
        let running = start(move |_, _| answers.pop().unwrap_or(Some(Err("gone".to_owned()))));
        seconds(25).await;
        assert_eq!(running.seconds(GET_RULES), [0, 10, 20]);
        let events = running.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert!(events[0].contains("not available: refused;"), "{events:?}");
        seconds(10).await;
        assert_eq!(
            running.events(),
            ["X-Ray's sampling rules are known: 1 may apply"]
        );
        // Gone: what is known holds for an hour, and statistics are kept.
        for minute in 0..60 {
            seconds(60).await;
            assert_eq!(running.sampled("/", 2), 1, "{minute}");
        }
        assert_eq!(running.events().len(), 1, "said once");
        let document = &running.last(GET_TARGETS)[0];
        assert!(
            document["RequestCount"].as_u64().unwrap() > 100,
            "{document}"
        );
        let counted = document["RequestCount"].clone();
        seconds(120).await;
        assert_eq!(running.sampled("/", 2), 1);
        seconds(15).await;
        assert_eq!(
            running.last(GET_TARGETS)[0]["RequestCount"],
            counted,
            "too old to be asked"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rules_that_were_modified_are_asked_for_at_once_and_once() {
        let later = unix() + 600.0;
        let running = start(move |path, _| match path {
            GET_RULES => rules(&[rule("all", 1, "*")]),
            _ => Some(Ok(
                json!({"SamplingTargetDocuments": [], "LastRuleModification": later}),
            )),
        });
        for _ in 0..4 {
            seconds(11).await;
            running.sampled("/", 1);
        }
        assert!(running.seconds(GET_TARGETS).len() > 2);
        assert_eq!(
            running.seconds(GET_RULES).len(),
            2,
            "{:?}",
            running.seconds(GET_RULES)
        );
        assert_eq!(running.events().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn statistics_that_were_not_processed_are_reported_again() {
        let mut code = vec!["400", "400", "500", "500"];
        let running = start(move |path, _| match path {
            GET_RULES => rules(&[rule("all", 1, "*")]),
            _ => {
                let unprocessed: Vec<_> = code
                    .pop()
                    .into_iter()
                    .map(|code| json!({"RuleName": "all", "ErrorCode": code, "Message": "no"}))
                    .collect();
                Some(Ok(
                    json!({"SamplingTargetDocuments": [], "UnprocessedStatistics": unprocessed}),
                ))
            }
        });
        seconds(1).await;
        let mut counts = Vec::new();
        for _ in 0..5 {
            running.sampled("/", 1);
            seconds(11).await;
            counts.push(
                running.last(GET_TARGETS)[0]["RequestCount"]
                    .as_u64()
                    .unwrap(),
            );
        }
        assert_eq!(counts, [1, 2, 3, 1, 1]);
        let events = running.events();
        assert_eq!(events.len(), 3, "{events:?}");
        assert!(
            events[1].contains("500") && events[2].contains("are known"),
            "{events:?}"
        );
        // What the service does not know makes the rules old.
        assert_eq!(running.seconds(GET_RULES).len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn many_rules_come_in_pages_and_are_reported_in_parts() {
        let running = start(|path, body| match (path, body["NextToken"].as_str()) {
            (GET_RULES, None) => {
                let page: Vec<_> = (0..30)
                    .map(|n| rule(&format!("r{n}"), n, &format!("/{n}")))
                    .collect();
                Some(Ok(json!({ "SamplingRuleRecords": page, "NextToken": "2" })))
            }
            (GET_RULES, Some(_)) => rules(&[rule("last", 99, "*")]),
            _ => {
                let documents = body["SamplingStatisticsDocuments"].as_array().unwrap();
                assert!(documents.len() <= MOST_REPORTS);
                Some(Ok(json!({"SamplingTargetDocuments": []})))
            }
        });
        seconds(1).await;
        assert_eq!(
            running.events(),
            ["X-Ray's sampling rules are known: 31 may apply"]
        );
        for path in (0..30).map(|n| &*format!("/{n}").leak()).chain(["/other"]) {
            running.sampled(path, 1);
        }
        seconds(11).await;
        assert_eq!(running.seconds(GET_TARGETS).len(), 2);
        assert_eq!(running.last(GET_TARGETS).as_array().unwrap().len(), 6);
    }
}
