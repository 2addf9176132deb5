//! Downloads sources: only from allowed origins, also after redirects, and within limits of time and size.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Incoming},
    header::LOCATION,
};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, ServiceExt};
use tower_image_trace::{
    DownloadLayer,
    download::{Attempts, Download, DownloadBody},
    pool::{Buffer, BufferPool},
};

use super::url;

const MAX_REDIRECTS: usize = 3;
/// Most buffers that are kept for later downloads.
const BUFFERS: usize = 16;

/// Scheme (always `http`), host and port of a server with pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let without_userinfo = authority.as_str().rsplit('@').next()?;
        let port = match without_userinfo.strip_prefix(authority.host())? {
            "" | ":" => 80,
            // A port that is too large does not mean the default one.
            _ => authority.port_u16()?,
        };
        Some(Self {
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl FromStr for Origin {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        parse(text).map(|(_, origin)| origin)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("only absolute http:// URLs are sources")]
    Url,
    #[error("pictures from {0} are not allowed")]
    OriginNotAllowed(Origin),
    #[error("the source does not exist: its origin answered {0}")]
    Missing(StatusCode),
    #[error("the source's origin answered {0}")]
    Status(StatusCode),
    #[error("the source's redirect is not followed: {0}")]
    Redirect(#[source] Box<SourceError>),
    #[error("the source redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
    #[error("the source's origin cannot be reached")]
    Unreachable(#[source] legacy::Error),
    #[error("the source's origin broke off the download")]
    BrokenOff(#[source] hyper::Error),
    #[error("the source did not arrive within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("the source has more than the {0} bytes accepted")]
    TooLarge(usize),
}

/// The URL of a source whose origin is allowed.
#[derive(Debug)]
pub(crate) struct Source(Uri);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The origins, the time and the size that a download is limited to.
#[derive(Clone, Debug)]
pub(crate) struct SourceLimits {
    pub(crate) allowed: Vec<Origin>,
    /// For the whole download: from the first connection to the last byte, including redirects.
    pub(crate) time: Duration,
    pub(crate) bytes: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Sources {
    client: Download<Client<HttpConnector, Empty<Bytes>>>,
    buffers: BufferPool,
    limits: SourceLimits,
}

impl Sources {
    pub(crate) fn new(limits: SourceLimits, trace: &DownloadLayer) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: trace.layer(Client::builder(TokioExecutor::new()).build(connector)),
            buffers: BufferPool::new("download", BUFFERS),
            limits,
        }
    }

    pub(crate) fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Checks that the URL's origin is allowed.
    pub(crate) fn locate(&self, url: &str) -> Result<Source, SourceError> {
        let (uri, origin) = parse(url)?;
        if !self.limits.allowed.contains(&origin) {
            return Err(SourceError::OriginNotAllowed(origin));
        }
        Ok(Source(uri))
    }

    pub(crate) async fn download(&self, source: Source) -> Result<Buffer, SourceError> {
        let time = self.limits.time;
        let download = tokio::time::timeout(time, self.follow(source));
        download.await.map_err(|_| SourceError::Timeout(time))?
    }

    async fn follow(&self, mut source: Source) -> Result<Buffer, SourceError> {
        let attempts = Attempts::default();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = source.0.clone();
            request.extensions_mut().insert(attempts.clone());
            let response = self.client.clone().oneshot(request).await;
            let response = response.map_err(SourceError::Unreachable)?;
            let location = response.headers().get(LOCATION);
            match (response.status(), location) {
                (StatusCode::OK, _) => return self.read(response).await,
                (status, Some(location)) if status.is_redirection() => {
                    let location = url::from_bytes(location.as_bytes());
                    let target = self.locate(&url::resolve(&source.to_string(), &location));
                    source = target.map_err(|error| SourceError::Redirect(error.into()))?;
                }
                (status @ (StatusCode::NOT_FOUND | StatusCode::GONE), _) => {
                    return Err(SourceError::Missing(status));
                }
                (status, _) => return Err(SourceError::Status(status)),
            }
        }
        Err(SourceError::TooManyRedirects)
    }

    async fn read(
        &self,
        response: Response<DownloadBody<Incoming>>,
    ) -> Result<Buffer, SourceError> {
        let mut body = response.into_body();
        let limit = self.limits.bytes;
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            return Err(SourceError::TooLarge(limit));
        }
        let mut bytes = self.buffers.get(announced as usize);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(SourceError::BrokenOff)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if bytes.len() + data.len() > limit {
                return Err(SourceError::TooLarge(limit));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    }
}

fn parse(url: &str) -> Result<(Uri, Origin), SourceError> {
    let uri: Option<Uri> = url::encode(url).parse().ok();
    uri.and_then(|uri| Origin::of(&uri).map(|origin| (uri, origin)))
        .ok_or(SourceError::Url)
}
