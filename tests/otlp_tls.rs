//! TLS is the same over gRPC and over HTTP: who is trusted, who is shown, and what is said when it fails.

use std::{sync::mpsc, time::Duration};

use opentelemetry::trace::{Tracer, TracerProvider};
use tower_image_trace::{Protocol, Telemetry, TelemetryBuilder, telemetry::TelemetryEvent};

use crate::support::{
    certificates::{Ca, Identity, self_signed_ca},
    file::File,
    otlp::{OtlpServer, PATIENCE},
    process::run_alone,
};

const HOST: &str = "127.0.0.1";
const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Runtime {
    MultiThread,
    CurrentThread,
    None,
}

const RUNTIMES: [Runtime; 3] = [Runtime::MultiThread, Runtime::CurrentThread, Runtime::None];

fn builder(server: &OtlpServer, protocol: Protocol) -> TelemetryBuilder {
    Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint(server.endpoint())
        .protocol(protocol)
}

fn export(telemetry: &Telemetry, runtime: Runtime) {
    drop(telemetry.tracer_provider().tracer("test").start("span"));
    let runtime = match runtime {
        Runtime::MultiThread => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build(),
        Runtime::CurrentThread => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        Runtime::None => return telemetry.shutdown_blocking(PATIENCE).unwrap(),
    };
    runtime
        .unwrap()
        .block_on(telemetry.shutdown(PATIENCE))
        .unwrap();
}

/// Each protocol on each runtime.
fn arrives(
    server: impl Fn() -> OtlpServer,
    configure: impl Fn(TelemetryBuilder) -> TelemetryBuilder,
) {
    for protocol in PROTOCOLS {
        for runtime in RUNTIMES {
            let server = server();
            let telemetry = configure(builder(&server, protocol)).build().unwrap();
            export(&telemetry, runtime);
            assert_eq!(server.spans().len(), 1, "{protocol} {runtime:?}");
        }
    }
}

#[test]
fn without_tls() {
    arrives(OtlpServer::start, |builder| builder);
}

#[test]
fn with_a_ca_of_its_own() {
    let ca = Ca::new("collector's CA");
    let server = ca.server(HOST);
    arrives(
        || OtlpServer::start_tls(server.server_config(None)),
        |builder| builder.server_certificate(&ca.pem),
    );
}

#[test]
fn with_a_self_signed_certificate_that_calls_itself_a_ca() {
    let server = self_signed_ca(HOST);
    arrives(
        || OtlpServer::start_tls(server.server_config(None)),
        |builder| builder.server_certificate(&server.certificate),
    );
}

#[test]
fn with_mutual_tls() {
    let ca = Ca::new("collector's CA");
    let clients = Ca::new("clients' CA");
    let (server, client) = (ca.server(HOST), clients.client());
    arrives(
        || OtlpServer::start_tls(server.server_config(Some(&clients))),
        |builder| {
            builder
                .server_certificate(&ca.pem)
                .client_certificate(&client.certificate, &client.key)
        },
    );
}

/// The system's roots come from `SSL_CERT_FILE`, so each is a process of its own.
#[test]
fn with_the_systems_roots() {
    let ca = Ca::new("a public CA");
    let identity = ca.server(HOST);
    let roots = File::new("roots.pem", &ca.pem);
    for protocol in PROTOCOLS {
        for runtime in RUNTIMES {
            let server = OtlpServer::start_tls(identity.server_config(None));
            in_a_process_of_its_own(&[
                ("SSL_CERT_FILE", roots.path()),
                ("IMGPROXY_OPEN_TELEMETRY_ENDPOINT", &server.endpoint()),
                ("IMGPROXY_OPEN_TELEMETRY_PROTOCOL", &protocol.to_string()),
                ("IMGPROXY_OPEN_TELEMETRY_GRPC_INSECURE", "false"),
                ("TEST_RUNTIME", &format!("{runtime:?}")),
            ]);
            let spans = server.spans();
            assert_eq!(spans.len(), 1, "{protocol} {runtime:?}");
            assert_eq!(spans[0].resource["service.name"], "imgproxy");
        }
    }
}

#[test]
fn with_files_in_the_standard_variables() {
    let (ca, clients) = (Ca::new("collector's CA"), Ca::new("clients' CA"));
    let server = OtlpServer::start_tls(ca.server(HOST).server_config(Some(&clients)));
    let client = clients.client();
    let roots = File::new("ca.pem", &ca.pem);
    let certificate = File::new("client.pem", &client.certificate);
    let key = File::new("client.key", &client.key);
    in_a_process_of_its_own(&[
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &format!("https://{}", server.endpoint()),
        ),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.path()),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.path()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.path()),
        ("OTEL_SERVICE_NAME", "thumbs"),
    ]);
    assert_eq!(server.spans()[0].resource["service.name"], "thumbs");
}

const RSA: &str = include_str!("certificates/rsa.pem");
const RSA_PKCS1: &str = include_str!("certificates/rsa.pkcs1.key");
const RSA_PKCS8: &str = include_str!("certificates/rsa.pkcs8.key");
const EC_VERSION_1: &str = include_str!("certificates/ec.version1.pem");
const EC_SEC1: &str = include_str!("certificates/ec.sec1.key");
const EC_ENCRYPTED: &str = include_str!("certificates/ec.encrypted.key");
const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const CUT_OFF: &str = "-----BEGIN CERTIFICATE-----\nMIIB";

/// Server certificate, client certificate, client key; a part of the message, or none when it is fine.
#[test]
fn pem_is_checked_when_it_is_read() {
    let chain = format!("{RSA}{EC_VERSION_1}");
    let with_words = format!("Bag Attributes\n{EC_VERSION_1}");
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, Option<&str>)] = &[
        (RSA,       "",           "",           None),
        (&chain,    "",           "",           None),
        (&with_words, "",         "",           None),
        ("",        RSA,          RSA_PKCS1,    None),
        ("",        RSA,          RSA_PKCS8,    None),
        (RSA,       &chain,       RSA_PKCS8,    None),
        ("",        EC_VERSION_1, EC_SEC1,      None),
        ("garbage", "",           "",           Some("SERVER_CERT: it is not PEM")),
        (CUT_OFF,   "",           "",           Some("SERVER_CERT: it is not PEM")),
        (BROKEN,    "",           "",           Some("SERVER_CERT: what is in it is not an X.509 certificate")),
        (RSA_PKCS1, "",           "",           Some("SERVER_CERT: there is no certificate in it")),
        ("",        RSA_PKCS8,    RSA_PKCS8,    Some("CLIENT_CERT: there is no certificate in it")),
        ("",        RSA,          RSA,          Some("CLIENT_KEY: there is no private key in it")),
        ("",        RSA,          "garbage",    Some("CLIENT_KEY: it is not PEM")),
        ("",        EC_VERSION_1, EC_ENCRYPTED, Some("CLIENT_KEY: the key is encrypted")),
        ("",        RSA,          EC_SEC1,      Some("CLIENT_KEY: the key does not belong to the certificate in IMGPROXY_OPEN_TELEMETRY_CLIENT_CERT")),
        ("",        EC_VERSION_1, RSA_PKCS1,    Some("CLIENT_KEY: the key does not belong")),
        ("",        RSA,          "",           Some("CLIENT_CERT: a client certificate needs its key")),
        ("",        "",           RSA_PKCS8,    Some("CLIENT_KEY: a client key needs its certificate")),
    ];
    for (row, &(server, client, key, expected)) in table.iter().enumerate() {
        // as it is, and with the line breaks written out
        for line_break in ["\n", "\\n"] {
            let vars = [
                ("SERVER_CERT", server),
                ("CLIENT_CERT", client),
                ("CLIENT_KEY", key),
            ]
            .map(|(name, pem)| {
                (
                    format!("IMGPROXY_OPEN_TELEMETRY_{name}"),
                    pem.replace('\n', line_break),
                )
            });
            let builder = Telemetry::builder().vars(vars).endpoint("collector:4317");
            match (builder.settings(), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected), "row {row}: {error}");
                }
                (result, _) => panic!("row {row}: {result:?}"),
            }
        }
    }
}

#[test]
fn a_certificate_file_that_is_not_there_is_named() {
    let vars = [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/ca.pem")];
    let settings = Telemetry::builder()
        .vars(vars)
        .endpoint("collector:4317")
        .settings()
        .unwrap();
    let warning = settings.warnings[0].to_string();
    assert!(
        warning.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"),
        "{warning}"
    );
    assert!(warning.contains("/no/such/ca.pem"), "{warning}");
}

#[test]
fn a_client_certificate_without_tls_is_refused() {
    let builder = Telemetry::builder()
        .vars([] as [(&str, &str); 0])
        .endpoint("http://collector:4317")
        .client_certificate(RSA, RSA_PKCS8);
    let error = builder.settings().unwrap_err().to_string();
    assert!(error.contains("certificate is set"), "{error}");
}

/// Run by the tests above with the environment that they want.
#[test]
#[ignore = "a part of other tests"]
fn child_process() {
    let telemetry = Telemetry::from_env().unwrap();
    let runtime = match std::env::var("TEST_RUNTIME").as_deref() {
        Ok("MultiThread") => Runtime::MultiThread,
        Ok("CurrentThread") => Runtime::CurrentThread,
        _ => Runtime::None,
    };
    export(&telemetry, runtime);
}

fn in_a_process_of_its_own(vars: &[(&str, &str)]) {
    run_alone("otlp_tls::child_process", |command| {
        command.env_clear().envs(vars.iter().copied())
    });
}

/// What the log says about the first failure.
fn failure(
    server: &OtlpServer,
    protocol: Protocol,
    tls: impl Fn(TelemetryBuilder) -> TelemetryBuilder,
) -> String {
    let (said, errors) = mpsc::channel();
    let telemetry = tls(builder(server, protocol))
        .vars([("OTEL_BSP_SCHEDULE_DELAY", "10")])
        .on_event(move |event| {
            if let TelemetryEvent::ExportFailed { error, .. } = event {
                said.send(error.clone()).unwrap();
            }
        })
        .build()
        .unwrap();
    drop(telemetry.tracer_provider().tracer("test").start("span"));
    let error = errors.recv_timeout(PATIENCE).unwrap();
    telemetry.shutdown_blocking(Duration::ZERO).unwrap_err();
    assert!(server.spans().is_empty());
    error
}

fn fails_with(
    server: &Identity,
    clients: Option<&Ca>,
    expected: &str,
    tls: impl Fn(TelemetryBuilder) -> TelemetryBuilder,
) {
    for protocol in PROTOCOLS {
        let server = OtlpServer::start_tls(server.server_config(clients));
        let message = failure(&server, protocol, &tls);
        assert!(message.contains(expected), "{protocol}: {message}");
    }
}

#[test]
fn a_wrong_ca_is_named() {
    let (ca, other) = (Ca::new("collector's CA"), Ca::new("another CA"));
    let expected = "not signed by a CA that is trusted";
    fails_with(&ca.server(HOST), None, expected, |builder| {
        builder.server_certificate(&other.pem)
    });
}

#[test]
fn a_wrong_host_name_is_named() {
    let ca = Ca::new("collector's CA");
    let expected = "is for another host name";
    fails_with(&ca.server("collector.example"), None, expected, |builder| {
        builder.server_certificate(&ca.pem)
    });
}

#[test]
fn an_expired_certificate_is_named() {
    let ca = Ca::new("collector's CA");
    fails_with(&ca.expired_server(HOST), None, "has expired", |builder| {
        builder.server_certificate(&ca.pem)
    });
}

#[test]
fn a_missing_client_certificate_is_named() {
    let (ca, clients) = (Ca::new("collector's CA"), Ca::new("clients' CA"));
    let expected = "asks for a client certificate, and none is set";
    fails_with(&ca.server(HOST), Some(&clients), expected, |builder| {
        builder.server_certificate(&ca.pem)
    });
}

#[test]
fn a_foreign_client_certificate_is_named() {
    let (ca, clients) = (Ca::new("collector's CA"), Ca::new("clients' CA"));
    let foreign = Ca::new("another CA").client();
    let expected = "may not accept the client certificate";
    fails_with(&ca.server(HOST), Some(&clients), expected, |builder| {
        builder
            .server_certificate(&ca.pem)
            .client_certificate(&foreign.certificate, &foreign.key)
    });
}
