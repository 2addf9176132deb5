//! The two calls over plain HTTP, to a service on a local address.

use std::{fmt, future::Future, time::Duration};

use bytes::Bytes;
use http::{
    Request, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value as Json;
use tokio::time::timeout;

use crate::{instrument::message, telemetry::shown::without_secrets};

/// How long a call may take, connecting included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// An account has a few dozen rules, of about 500 bytes each.
const LONGEST_ANSWER: usize = 1 << 20;
/// How many bytes of a text from elsewhere are shown.
pub(super) const LONGEST_TEXT: usize = 300;

/// What has the rules.
pub(crate) trait RuleService {
    /// Posts `body` and returns the answer; an error is one line.
    fn call(
        &self,
        path: &'static str,
        body: Json,
    ) -> impl Future<Output = Result<Json, String>> + Send;
}

/// A client of the service that has the rules; it must be used on the I/O thread, where its connections live.
pub(crate) struct Client {
    connections: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Without a slash at its end.
    endpoint: String,
}

impl Client {
    pub(crate) fn new(endpoint: &Uri) -> Self {
        Self {
            connections: legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(HttpConnector::new()),
            endpoint: endpoint.to_string().trim_end_matches('/').to_owned(),
        }
    }

    async fn exchange(&self, url: &str, body: &Json) -> Result<Json, String> {
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(
                USER_AGENT,
                concat!("tower-image-trace/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::from(body.to_string()))
            .map_err(|error| message(&error, LONGEST_TEXT))?;
        let response = self.connections.request(request).await;
        let response = response.map_err(|error| message(&error, LONGEST_TEXT))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect();
        let body = body.await.map_err(|error| message(&*error, LONGEST_TEXT))?;
        let body = body.to_bytes();
        if !status.is_success() {
            return Err(format!("{status}: {}", beginning(&body)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| format!("an answer that is no JSON ({error}): {}", beginning(&body)))
    }
}

impl RuleService for Client {
    async fn call(&self, path: &'static str, body: Json) -> Result<Json, String> {
        let url = format!("{}{path}", self.endpoint);
        let exchange = timeout(TIMEOUT, self.exchange(&url, &body)).await;
        exchange
            .unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
            .map_err(|error| format!("{}{path}: {error}", without_secrets(&self.endpoint)))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client")
            .field(&without_secrets(&self.endpoint))
            .finish()
    }
}

/// The beginning of an answer as one line.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST_TEXT)]);
    text.replace(char::is_control, " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    // faults C16
    #[tokio::test]
    async fn errors_show_no_path_that_may_be_secret() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let client = Client::new(&format!("http://{address}/s3cret").parse().unwrap());
        let error = client.call("/GetSamplingRules", Json::Null).await;
        let error = error.unwrap_err();
        let expected = format!("http://{address}/…/GetSamplingRules: ");
        assert!(error.starts_with(&expected), "{error}");
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
