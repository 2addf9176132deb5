//! What a collector says, as a line of the log shows it.

use std::{cmp::Reverse, fmt};

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::telemetry::settings::OtlpExporter;

/// How many bytes of an answer are searched for what its line says.
const MOST_READ: usize = 64 * 1024;
/// The most characters of a line.
const LONGEST_LINE: usize = 200;

/// The secrets of an exporter, which some collectors and proxies repeat in their errors.
///
/// Every text from the other end becomes a line here: secrets are hidden first, because a cut would leave a part
/// of one that no longer looks like it.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// The values of the headers and of `Proxy-Authorization`, and what the endpoint has besides its host and the
    /// path that OTLP prescribes.
    pub(super) fn of(exporter: &OtlpExporter) -> Self {
        let proxy = exporter
            .proxy
            .as_ref()
            .and_then(|proxy| proxy.authorization());
        let values = exporter
            .headers
            .iter()
            .map(|(_, value)| value)
            .chain(&proxy);
        let mut secrets: Vec<_> = values
            .filter_map(|value| value.to_str().ok())
            // The credentials after a scheme (`Bearer …`) are a secret of their own.
            .flat_map(|value| [Some(value), value.split_once(' ').map(|it| it.1)])
            .flatten()
            .map(|secret| secret.trim().to_owned())
            .chain(in_endpoint(&exporter.endpoint))
            // Shorter ones are everyday words.
            .filter(|secret| secret.len() >= 4)
            .collect();
        // A shorter secret inside a longer one would leave the rest of it.
        secrets.sort_by_key(|secret| Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// The beginning of a text, without line breaks and other control characters.
    pub(super) fn one_line(&self, text: &str) -> String {
        one_line(&self.masked(text))
    }

    /// The beginning of an answer as one line of text: the title of an HTML page, or the text itself.
    pub(super) fn excerpt(&self, body: &[u8]) -> String {
        let read = &body[..body.len().min(MOST_READ)];
        let mut text = self.masked(&String::from_utf8_lossy(read));
        if read.len() < body.len() {
            self.drop_beginning_at_end(&mut text);
        }
        let text = match (text.find("<title>"), text.find("</title>")) {
            (Some(start), Some(end)) if start + 7 <= end => &text[start + 7..end],
            _ => &text,
        };
        one_line(text)
    }

    fn masked(&self, text: &str) -> String {
        let mask = |text: String, secret: &String| match text.contains(secret) {
            true => text.replace(secret, "…"),
            false => text,
        };
        self.0.iter().fold(text.to_owned(), mask)
    }

    /// Drops the part of a secret that a cut has left at the end of a text.
    fn drop_beginning_at_end(&self, text: &mut String) {
        let left = |secret: &String| {
            let mut beginnings = (1..secret.len()).rev().filter_map(|end| secret.get(..end));
            let found = beginnings.find(|beginning| text.ends_with(beginning));
            found.map(str::len)
        };
        let longest = self.0.iter().filter_map(left).max().unwrap_or(0);
        text.truncate(text.len() - longest);
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.0.len()).finish()
    }
}

/// What may be secret in an endpoint, as it stands there and percent-decoded.
fn in_endpoint(endpoint: &Uri) -> Vec<String> {
    // Shorter parts of a path are everyday words.
    const SHORTEST_PART: usize = 8;
    let mut secrets = Vec::new();
    let authority = endpoint.authority().map_or("", |it| it.as_str());
    if let Some((user, _)) = authority.rsplit_once('@') {
        secrets.push(user);
        secrets.extend(user.split_once(':').map(|(_, password)| password));
    }
    let (path, query) = (endpoint.path(), endpoint.query().unwrap_or_default());
    let own = ["/v1/traces", "/v1/metrics", "/v1/logs"]
        .iter()
        .find_map(|prescribed| path.strip_suffix(prescribed))
        .unwrap_or(path);
    let values = query
        .split('&')
        .map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
    let parts = own.split('/').chain(values);
    secrets.extend(parts.filter(|part| part.len() >= SHORTEST_PART));
    if !own.trim_matches('/').is_empty() {
        secrets.push(path);
    }
    secrets.push(query);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let both = |text: &str| [text.to_owned(), decoded(text)];
    secrets.into_iter().flat_map(both).collect()
}

fn one_line(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = printable.take(LONGEST_LINE + 1).collect();
    if line.chars().count() > LONGEST_LINE {
        line.pop();
        line.push('…');
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::AUTHORIZATION};

    use super::*;
    use crate::telemetry::settings::Protocol;

    fn secrets(endpoint: &'static str, authorization: &str) -> Secrets {
        let mut exporter = OtlpExporter::new(Uri::from_static(endpoint), Protocol::Http);
        let authorization = HeaderValue::from_str(authorization).unwrap();
        exporter.headers.push((AUTHORIZATION, authorization));
        Secrets::of(&exporter)
    }

    // faults F17
    #[test]
    fn no_part_of_a_secret_is_left_by_a_cut() {
        let token = "s3cret-".repeat(80);
        let secrets = secrets("http://c/v1/traces", &format!("Bearer {token}"));
        let echo = format!("invalid token: {token}");
        assert_eq!(secrets.one_line(&echo), "invalid token: …");
        assert_eq!(secrets.excerpt(echo.as_bytes()), "invalid token: …");
        // Each one is hidden, so that the one that the limit has cut is on the line.
        let many = token.repeat(MOST_READ / token.len() + 1);
        let excerpt = secrets.excerpt(many.as_bytes());
        assert!(excerpt.chars().all(|c| c == '…'), "{excerpt}");
    }

    // faults C16, F17
    #[test]
    fn what_is_secret_in_an_endpoint_is_hidden() {
        let endpoint = "http://c/otlp/s3cret-token/v1/traces?key=s3cret%3D%3Dkey&n=1";
        let in_code = "http://user:s3cret@c/v1/traces";
        for (endpoint, said, expected) in [
            (
                endpoint,
                r#"{"path":"/otlp/s3cret-token/v1/traces"}"#,
                r#"{"path":"…"}"#,
            ),
            (endpoint, "no tenant s3cret-token", "no tenant …"),
            (endpoint, "no key s3cret==key", "no key …"),
            (endpoint, "no key s3cret%3D%3Dkey", "no key …"),
            (
                endpoint,
                "POST /v1/traces of otlp",
                "POST /v1/traces of otlp",
            ),
            (in_code, "no user s3cret", "no user …"),
            ("http://c/v1/traces", "POST /v1/traces", "POST /v1/traces"),
            ("http://c/s3cret", "POST /s3cret", "POST …"),
        ] {
            assert_eq!(secrets(endpoint, "").one_line(said), expected, "{endpoint}");
        }
    }

    #[test]
    fn a_secret_inside_another_one_leaves_nothing_of_it() {
        let secrets = secrets("http://c/s3cret-tenant-token/v1/traces", "s3cret-tenant");
        assert_eq!(secrets.one_line("no s3cret-tenant-token"), "no …");
    }
}
