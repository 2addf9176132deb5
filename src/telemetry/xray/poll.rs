//! Asks for the rules and for the quotas, again and again.

use std::{
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use super::{
    client::{Client, LONGEST_TEXT, RuleService},
    rule::Report,
    rules::Rules,
    sampler::XraySampler,
};
use crate::{
    instrument::text,
    telemetry::{
        event::{Sink, TelemetryEvent},
        settings::XrayRules,
    },
};

pub(super) const GET_RULES: &str = "/GetSamplingRules";
/// The path of `GetSamplingTargets`.
pub(super) const GET_TARGETS: &str = "/SamplingTargets";
/// How often statistics are reported, and quotas asked for, unless X-Ray says otherwise.
const TARGETS: Duration = Duration::from_secs(10);
/// How soon rules are asked for again that could not be had: the service may start after this one.
const RETRY: Duration = Duration::from_secs(10);
/// The longest pause; an `Instant` cannot hold every one.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// The most statistics in a call, by the API.
pub(super) const MOST_REPORTS: usize = 25;
/// The most pages of rules; a service that is broken may have no last one.
const MOST_PAGES: usize = 10;

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
    pub(super) fn of(
        rules: Arc<Rules>,
        service: S,
        polling_interval: Duration,
        events: Sink,
    ) -> Self {
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
        self.rules.replace(&records, self.polling_interval);
        self.as_of = self.as_of.max(as_of);
        Ok(())
    }

    /// Reports statistics and asks for quotas; whether the rules are to be asked for at once.
    async fn report(&mut self) -> bool {
        let reports = self.rules.reports();
        let mut is_outdated = false;
        for some in reports.chunks(MOST_REPORTS) {
            let body = self.documents(some);
            let answer = self.service.call(GET_TARGETS, body).await;
            match answer.and_then(|answer| self.take(some, answer)) {
                Ok(outdated) => {
                    is_outdated |= outdated;
                    self.note(Call::Targets, Ok(()));
                }
                Err(error) => {
                    self.note(Call::Targets, Err(error));
                    break;
                }
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
    fn take(&mut self, reports: &[Report], mut answer: Json) -> Result<bool, String> {
        let targets = list(&mut answer, "SamplingTargetDocuments", GET_TARGETS)?;
        self.rules.allot(targets, unix());
        let unprocessed = answer["UnprocessedStatistics"].as_array();
        let unprocessed = unprocessed.map_or(&[][..], Vec::as_slice);
        // The statistics of a rule that the service could not take now are reported once more.
        let failed: Vec<_> = unprocessed.iter().filter(|it| has_code(it, '5')).collect();
        let taken = |report: &&Report| !failed.iter().any(|it| it["RuleName"] == *report.rule);
        self.rules.reported(reports.iter().filter(taken));
        if let Some(failed) = failed.first() {
            let failed = text(failed, LONGEST_TEXT);
            return Err(format!(
                "{GET_TARGETS}: statistics were not processed: {failed}"
            ));
        }
        if let Some(refused) = unprocessed.first()
            && !mem::replace(&mut self.said_unprocessed, true)
        {
            let refused = text(refused, LONGEST_TEXT);
            tracing::warn!(%refused, "X-Ray has not processed statistics of a sampling rule");
        }
        let modified = answer["LastRuleModification"].as_f64().unwrap_or(0.0);
        let is_modified = modified > self.as_of;
        // The clock there may be ahead of ours, and one modification is a reason to ask once.
        self.as_of = self.as_of.max(modified);
        // A rule may be unknown there.
        Ok(is_modified || unprocessed.iter().any(|it| has_code(it, '4')))
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
pub(super) fn unix() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
