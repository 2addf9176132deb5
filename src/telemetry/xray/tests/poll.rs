//! The calls over time, of a clock that tests move.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use opentelemetry::{KeyValue, trace::TraceId};
use opentelemetry_sdk::Resource;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::super::{
    client::RuleService,
    poll::{GET_RULES, GET_TARGETS, MOST_REPORTS, Poller, unix},
    rules::Rules,
};
use crate::telemetry::event::Sink;

/// When a call was made, its path, and its body.
type Called = (Duration, &'static str, Json);
type Answer = Box<dyn FnMut(&'static str, &Json) -> Option<Result<Json, String>> + Send>;

/// Answers as it is told, or never. Time is tokio's, which passes at once where all wait.
struct Fake {
    answer: Mutex<Answer>,
    calls: Arc<Mutex<Vec<Called>>>,
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

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Running {
    rules: Arc<Rules>,
    calls: Arc<Mutex<Vec<Called>>>,
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
    start_polling(Duration::from_secs(300), answer)
}

fn start_polling(
    interval: Duration,
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
    let poller = Poller::of(rules.clone(), service, interval, sink);
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
async fn rules_hold_from_one_poll_to_the_next_however_long_that_is() {
    const INTERVAL: u64 = 3 * 3600;
    let answer = |path, _: &Json| match path {
        GET_RULES => rules(&[rule("all", 1, "*")]),
        _ => Some(Ok(json!({"SamplingTargetDocuments": []}))),
    };
    let running = start_polling(Duration::from_secs(INTERVAL), answer);
    for hour in 0..7 {
        seconds(1).await;
        // The rule that is known counts its requests; without rules nothing does.
        running.sampled("/", 2);
        seconds(20).await;
        let reports = running.seconds(GET_TARGETS).len();
        assert_eq!(reports, hour + 1, "after {hour} hours");
        seconds(3600).await;
    }
    assert_eq!(running.seconds(GET_RULES).len(), 3);
    // A time that no clock holds is no reason to panic.
    let running = start_polling(Duration::MAX, answer);
    seconds(7200).await;
    running.sampled("/", 2);
    seconds(20).await;
    assert_eq!(running.seconds(GET_TARGETS).len(), 1);
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
