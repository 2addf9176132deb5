//! Arbitrary texts through the redaction, in the way that the target is named after.
//!
//! ```text
//! cd fuzz && mkdir -p corpus/redact_text
//! cargo run --release --bin redact_text -- -max_total_time=600 corpus/redact_text seeds/redact
//! ```
//!
//! The input is the text. The redaction never panics, changes nothing when it is applied again, and
//! lets no planted secret through, whatever stands around it.

#![no_main]

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;

use redact::{Redaction, SourceUrls};

// The module is private to the crate.
#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../../src/redact/mod.rs"]
mod redact;

const SECRET: &str = "S3CRET";
const PLANTED: &str = "https://user:S3CRET@h/a.jpg?w=1&sig=S3CRET&h=1";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    for source_urls in [
        SourceUrls::Redacted,
        SourceUrls::OriginOnly,
        SourceUrls::Full,
    ] {
        let redaction = Redaction {
            source_urls,
            ..Redaction::default()
        };
        // What is sensitive is redacted within the URL of a source too, except for `Full`.
        let hides_all = source_urls != SourceUrls::Full && !text.contains(SECRET);
        match env!("CARGO_BIN_NAME") {
            "redact_text" => {
                let redact = |text: &str| redaction.message(text).into_owned();
                is_idempotent(redact, &text);
                is_idempotent(|text| redaction.path(text).into_owned(), &text);
                if let Some(url) = redaction.source_url(&text) {
                    assert_eq!(redaction.source_url(&url).as_deref(), Some(&*url));
                }
                let _ = redact::origin(&text);
                let redacted = redact(&format!("{text} {PLANTED} {text}"));
                assert!(!hides_all || !redacted.contains(SECRET), "{redacted}");
            }
            "redact_query" => {
                let redact = |text: &str| redaction.query(text).into_owned();
                is_idempotent(redact, &text);
                let redacted = redact(&format!("{text}&u={PLANTED}&{text}"));
                assert!(!hides_all || !redacted.contains(SECRET), "{redacted}");
            }
            _ => {
                let encoded = BASE64_URL_SAFE_NO_PAD.encode(format!("{PLANTED}&{text}"));
                let path = format!("/rs:fill/{encoded}.png");
                let redact = |text: &str| redaction.path(text).into_owned();
                is_idempotent(redact, &path);
                let redacted = redact(&path);
                let source = redacted.trim_start_matches("/rs:fill/");
                let source = source.trim_end_matches(".png");
                let decoded = BASE64_URL_SAFE_NO_PAD.decode(source);
                let decoded = decoded.expect("base64 stays base64");
                let decoded = String::from_utf8_lossy(&decoded);
                assert!(!hides_all || !decoded.contains(SECRET), "{decoded}");
                assert!(
                    text.contains("user") || !decoded.contains("user"),
                    "{decoded}"
                );
            }
        }
    }
});

fn is_idempotent(redact: impl Fn(&str) -> String, text: &str) {
    let once = redact(text);
    assert_eq!(redact(&once), once);
}
