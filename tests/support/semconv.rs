//! What OpenTelemetry's semantic conventions say of everything that the crate emits under their names.

pub const VERSION: &str = "1.44.0";

pub struct Metric {
    pub name: &'static str,
    pub instrument: &'static str,
    pub unit: &'static str,
    pub brief: &'static str,
    pub required: &'static [&'static str],
    /// The attributes that some series have.
    pub others: &'static [&'static str],
}

/// A span, or a part of a resource.
pub struct Group {
    pub required: &'static [&'static str],
    pub others: &'static [&'static str],
}

impl Metric {
    pub fn named(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|metric| metric.name == name)
    }

    /// Fails when a series lacks a required attribute, or has one that the metric does not know.
    pub fn check_attributes<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        check(self.name, self.required, self.others, keys);
    }
}

impl Group {
    pub fn knows(&self, key: &str) -> bool {
        self.required.contains(&key) || self.others.contains(&key)
    }

    /// Fails when a required attribute is missing, or one is unknown.
    pub fn check_attributes<'a>(&self, what: &str, keys: impl IntoIterator<Item = &'a str>) {
        check(what, self.required, self.others, keys);
    }
}

fn check<'a>(
    what: &str,
    required: &[&str],
    others: &[&str],
    keys: impl IntoIterator<Item = &'a str>,
) {
    let keys: Vec<_> = keys.into_iter().collect();
    for key in required {
        assert!(keys.contains(key), "{what} lacks {key}: {keys:?}");
    }
    for key in &keys {
        assert!(
            required.contains(key) || others.contains(key),
            "{what} has no {key}"
        );
    }
}

/// http-spans: HTTP server span.
pub const HTTP_SERVER: Group = Group {
    required: &["http.request.method", "url.path", "url.scheme"],
    others: &[
        "client.address",
        "client.port",
        "error.type",
        "http.request.body.size",
        "http.request.method_original",
        "http.request.size",
        "http.response.body.size",
        "http.response.size",
        "http.response.status_code",
        "http.route",
        "network.local.address",
        "network.local.port",
        "network.peer.address",
        "network.peer.port",
        "network.protocol.name",
        "network.protocol.version",
        "network.transport",
        "server.address",
        "server.port",
        "url.query",
        "user_agent.original",
        "user_agent.synthetic.type",
    ],
};

/// http-spans: HTTP client span.
pub const HTTP_CLIENT: Group = Group {
    required: &[
        "http.request.method",
        "server.address",
        "server.port",
        "url.full",
    ],
    others: &[
        "error.type",
        "http.request.body.size",
        "http.request.method_original",
        "http.request.resend_count",
        "http.request.size",
        "http.response.body.size",
        "http.response.size",
        "http.response.status_code",
        "network.peer.address",
        "network.peer.port",
        "network.protocol.name",
        "network.protocol.version",
        "network.transport",
        "url.scheme",
        "url.template",
        "user_agent.original",
        "user_agent.synthetic.type",
    ],
};

/// rpc-spans: RPC server span, and grpc: Server.
pub const GRPC_SERVER: Group = Group {
    required: &["rpc.system.name"],
    others: &[
        "error.type",
        "network.peer.address",
        "network.peer.port",
        "rpc.method",
        "rpc.method_original",
        // Required, but a call whose service fails without a status has none.
        "rpc.response.status_code",
        "server.address",
        "server.port",
    ],
};

/// exceptions-spans: the event `exception`.
pub const EXCEPTION: Group = Group {
    required: &["exception.message", "exception.type"],
    others: &["exception.stacktrace"],
};

/// The entities of a resource, by name.
pub const ENTITIES: [(&str, Group); 5] = [
    (
        "service",
        Group {
            required: &["service.name"],
            others: &["service.criticality", "service.version"],
        },
    ),
    (
        "service.instance",
        Group {
            required: &["service.instance.id"],
            others: &[],
        },
    ),
    (
        "telemetry.sdk",
        Group {
            required: &[
                "telemetry.sdk.language",
                "telemetry.sdk.name",
                "telemetry.sdk.version",
            ],
            others: &[],
        },
    ),
    (
        "telemetry.distro",
        Group {
            required: &["telemetry.distro.name", "telemetry.distro.version"],
            others: &[],
        },
    ),
    (
        "process",
        Group {
            required: &["process.creation.time", "process.pid"],
            others: &[],
        },
    ),
];

const HTTP_METHOD_AND_SCHEME: &[&str] = &["http.request.method", "url.scheme"];

const HTTP_OUTCOME: &[&str] = &[
    "error.type",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
];

const COMPONENT: &[&str] = &["otel.component.name", "otel.component.type"];

/// Recommended when applicable, which it is for every exporter of the crate.
const EXPORTER: &[&str] = &[
    "otel.component.name",
    "otel.component.type",
    "server.address",
    "server.port",
];

pub const METRICS: &[Metric] = &[
    Metric {
        name: "http.client.request.duration",
        instrument: "histogram",
        unit: "s",
        brief: "Duration of HTTP client requests.",
        required: &["http.request.method", "server.address", "server.port"],
        others: &[
            "error.type",
            "http.response.status_code",
            "network.protocol.version",
        ],
    },
    Metric {
        name: "http.server.request.duration",
        instrument: "histogram",
        unit: "s",
        brief: "Duration of HTTP server requests.",
        required: HTTP_METHOD_AND_SCHEME,
        others: HTTP_OUTCOME,
    },
    Metric {
        name: "http.server.request.body.size",
        instrument: "histogram",
        unit: "By",
        brief: "Size of HTTP server request bodies.",
        required: HTTP_METHOD_AND_SCHEME,
        others: HTTP_OUTCOME,
    },
    Metric {
        name: "http.server.response.body.size",
        instrument: "histogram",
        unit: "By",
        brief: "Size of HTTP server response bodies.",
        required: HTTP_METHOD_AND_SCHEME,
        others: HTTP_OUTCOME,
    },
    Metric {
        name: "http.server.active_requests",
        instrument: "updowncounter",
        unit: "{request}",
        brief: "Number of active HTTP server requests.",
        required: HTTP_METHOD_AND_SCHEME,
        others: &[],
    },
    Metric {
        name: "rpc.server.call.duration",
        instrument: "histogram",
        unit: "s",
        brief: "Measures the duration of an incoming Remote Procedure Call (RPC).",
        required: &["rpc.system.name"],
        others: &["error.type", "rpc.method", "rpc.response.status_code"],
    },
    Metric {
        name: "process.cpu.time",
        instrument: "counter",
        unit: "s",
        brief: "Total CPU seconds broken down by different CPU modes.",
        required: &["cpu.mode"],
        others: &[],
    },
    Metric {
        name: "process.memory.usage",
        instrument: "updowncounter",
        unit: "By",
        brief: "The amount of physical memory in use.",
        required: &[],
        others: &[],
    },
    Metric {
        name: "process.memory.virtual",
        instrument: "updowncounter",
        unit: "By",
        brief: "The amount of committed virtual memory.",
        required: &[],
        others: &[],
    },
    Metric {
        name: "process.thread.count",
        instrument: "updowncounter",
        unit: "{thread}",
        brief: "Process threads count.",
        required: &[],
        others: &[],
    },
    Metric {
        name: "process.unix.file_descriptor.count",
        instrument: "updowncounter",
        unit: "{file_descriptor}",
        brief: "Number of UNIX file descriptors in use by the process.",
        required: &[],
        others: &[],
    },
    Metric {
        name: "otel.sdk.exporter.span.exported",
        instrument: "counter",
        unit: "{span}",
        brief: "The number of spans for which the export has finished, either successful or failed.",
        required: EXPORTER,
        others: &["error.type"],
    },
    Metric {
        name: "otel.sdk.exporter.metric_data_point.exported",
        instrument: "counter",
        unit: "{data_point}",
        brief: "The number of metric data points for which the export has finished, either successful or failed.",
        required: EXPORTER,
        others: &["error.type"],
    },
    Metric {
        name: "otel.sdk.exporter.log.exported",
        instrument: "counter",
        unit: "{log_record}",
        brief: "The number of log records for which the export has finished, either successful or failed.",
        required: EXPORTER,
        others: &["error.type"],
    },
    Metric {
        name: "otel.sdk.processor.span.processed",
        instrument: "counter",
        unit: "{span}",
        brief: "The number of spans for which the processing has finished, either successful or failed.",
        required: COMPONENT,
        others: &["error.type"],
    },
    Metric {
        name: "otel.sdk.processor.span.queue.size",
        instrument: "updowncounter",
        unit: "{span}",
        brief: "The number of spans in the queue of a given instance of an SDK span processor.",
        required: COMPONENT,
        others: &[],
    },
    Metric {
        name: "otel.sdk.processor.span.queue.capacity",
        instrument: "updowncounter",
        unit: "{span}",
        brief: "The maximum number of spans the queue of a given instance of an SDK span processor can hold.",
        required: COMPONENT,
        others: &[],
    },
    Metric {
        name: "otel.sdk.processor.log.processed",
        instrument: "counter",
        unit: "{log_record}",
        brief: "The number of log records for which the processing has finished, either successful or failed.",
        required: COMPONENT,
        others: &["error.type"],
    },
    Metric {
        name: "otel.sdk.processor.log.queue.size",
        instrument: "updowncounter",
        unit: "{log_record}",
        brief: "The number of log records in the queue of a given instance of an SDK log processor.",
        required: COMPONENT,
        others: &[],
    },
    Metric {
        name: "otel.sdk.processor.log.queue.capacity",
        instrument: "updowncounter",
        unit: "{log_record}",
        brief: "The maximum number of log records the queue of a given instance of an SDK Log Record processor can hold.",
        required: COMPONENT,
        others: &[],
    },
];

/// The log records of exceptions (semconv http-exceptions, rpc-exceptions).
pub const EXCEPTIONS: [&str; 3] = [
    "http.client.request.exception",
    "http.server.request.exception",
    "rpc.server.call.exception",
];
