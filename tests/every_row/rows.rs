//! The table.

use std::time::Duration;

use super::stack::Client;

pub struct Row {
    /// The last segment of the path; decides what the service does.
    pub name: &'static str,
    pub method: &'static str,
    pub client: Client,
    /// At least so long is the body on its way.
    pub takes: Duration,
    /// Attributes of the root span; `-` for those that must not be there.
    pub http: &'static [(&'static str, &'static str)],
    pub rpc: &'static [(&'static str, &'static str)],
}

const ROW: Row = Row {
    name: "",
    method: "GET",
    client: Client::Reads,
    takes: Duration::ZERO,
    http: &[],
    rpc: &[],
};

pub const ROWS: &[Row] = &[
    Row {
        name: "Ok",
        http: &[
            ("name", "GET /rows/{row}"),
            ("http.request.method", "GET"),
            ("http.route", "/rows/{row}"),
            ("http.response.status_code", "200"),
            ("url.path", "/rows/Ok"),
            ("url.query", "w=3&sig=REDACTED"),
            ("url.scheme", "http"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "-"),
        ],
        rpc: &[
            ("name", "rows.v1.Rows/Ok"),
            ("rpc.system.name", "grpc"),
            ("rpc.method", "rows.v1.Rows/Ok"),
            ("rpc.response.status_code", "OK"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "-"),
        ],
        ..ROW
    },
    Row {
        name: "SlowBody",
        takes: Duration::from_millis(300),
        http: &[
            ("http.response.status_code", "200"),
            ("http.response.body.size", "10"),
            ("status", "Unset"),
            ("image.request.cancelled", "-"),
        ],
        rpc: &[
            ("rpc.method", "rows.v1.Rows/SlowBody"),
            ("rpc.response.status_code", "OK"),
            ("http.response.body.size", "10"),
            ("status", "Unset"),
            ("image.request.cancelled", "-"),
        ],
        ..ROW
    },
    Row {
        name: "Head",
        method: "HEAD",
        http: &[
            ("name", "HEAD /rows/{row}"),
            ("status", "Unset"),
            ("image.request.cancelled", "-"),
        ],
        ..ROW
    },
    Row {
        name: "NotFound",
        http: &[
            ("http.response.status_code", "404"),
            ("status", "Unset"),
            ("error.type", "-"),
        ],
        rpc: &[
            ("rpc.method", "rows.v1.Rows/NotFound"),
            ("rpc.response.status_code", "NOT_FOUND"),
            ("status", "Unset"),
            ("error.type", "-"),
        ],
        ..ROW
    },
    Row {
        name: "Unavailable",
        http: &[
            ("http.response.status_code", "503"),
            ("status", "Error"),
            ("error.type", "503"),
            ("exception", "-"),
        ],
        rpc: &[
            ("rpc.response.status_code", "UNAVAILABLE"),
            ("status", "Error"),
            ("error.type", "UNAVAILABLE"),
            ("exception", "-"),
        ],
        ..ROW
    },
    Row {
        name: "Fails",
        http: &[
            ("name", "GET /rows/{row}"),
            ("http.response.status_code", "-"),
            ("status", "Error origin is slow"),
            ("error.type", "timeout"),
            ("exception", "origin is slow"),
        ],
        rpc: &[
            ("rpc.response.status_code", "-"),
            ("status", "Error origin is slow"),
            ("error.type", "timeout"),
            ("exception", "origin is slow"),
        ],
        ..ROW
    },
    Row {
        name: "Panics",
        http: &[
            ("status", "Error on purpose"),
            ("error.type", "panic"),
            ("exception", "on purpose"),
            ("image.request.cancelled", "-"),
        ],
        rpc: &[
            ("status", "Error on purpose"),
            ("error.type", "panic"),
            ("exception", "on purpose"),
            ("image.request.cancelled", "-"),
        ],
        ..ROW
    },
    Row {
        name: "BodyFails",
        http: &[
            ("http.response.status_code", "200"),
            ("http.response.body.size", "5"),
            ("status", "Error origin went away"),
            ("error.type", "connection_reset"),
        ],
        rpc: &[
            ("rpc.response.status_code", "-"),
            ("status", "Error origin went away"),
            ("error.type", "connection_reset"),
        ],
        ..ROW
    },
    Row {
        name: "Hangs",
        client: Client::LeavesTheHandler,
        http: &[
            ("name", "GET /rows/{row}"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "downloading_image"),
        ],
        rpc: &[
            ("name", "rows.v1.Rows/Hangs"),
            ("rpc.response.status_code", "CANCELLED"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "downloading_image"),
        ],
        ..ROW
    },
    Row {
        name: "EndlessBody",
        client: Client::LeavesTheBody,
        http: &[
            ("http.response.status_code", "200"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "response_body"),
        ],
        rpc: &[
            ("rpc.method", "rows.v1.Rows/EndlessBody"),
            ("rpc.response.status_code", "CANCELLED"),
            ("status", "Unset"),
            ("error.type", "-"),
            ("image.request.cancelled", "response_body"),
        ],
        ..ROW
    },
    Row {
        name: "Ok",
        method: "BREW",
        http: &[
            ("name", "HTTP /rows/{row}"),
            ("http.request.method", "_OTHER"),
            ("http.request.method_original", "BREW"),
            ("status", "Unset"),
        ],
        ..ROW
    },
    Row {
        name: "Invented",
        rpc: &[
            ("name", "grpc"),
            ("rpc.method", "_OTHER"),
            ("rpc.method_original", "rows.v1.Rows/Invented"),
            ("rpc.response.status_code", "UNIMPLEMENTED"),
            ("error.type", "UNIMPLEMENTED"),
            ("status", "Error"),
        ],
        ..ROW
    },
];
