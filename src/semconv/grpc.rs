use http::StatusCode;

use super::number;

/// A gRPC status code (gRPC: Status codes and their use in gRPC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcCode {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl GrpcCode {
    /// By number.
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The value of a `grpc-status` header; what is no code is `UNKNOWN`, as gRPC clients have it.
    pub(crate) fn parse(status: &[u8]) -> Self {
        str::from_utf8(status)
            .ok()
            .and_then(number::<usize>)
            .and_then(|code| Self::ALL.get(code).copied())
            .unwrap_or(Self::Unknown)
    }

    /// What clients make of an answer that is not gRPC (gRPC: HTTP to gRPC Status Code Mapping).
    pub(crate) fn of_http(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// The value of `rpc.response.status_code`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// Whether a server's span is an error (semconv grpc: gRPC Status). The other codes are the
    /// caller's doing.
    pub(crate) fn is_server_error(self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::DeadlineExceeded
                | Self::Unimplemented
                | Self::Internal
                | Self::Unavailable
                | Self::DataLoss
        )
    }

    /// Whether an OTLP client sends the same request again (OTLP: OTLP/gRPC Response, Failures).
    /// `RESOURCE_EXHAUSTED` is retried only when the server says after which pause.
    #[cfg(feature = "otlp-grpc")]
    pub(crate) fn is_retried(self, with_pause: bool) -> bool {
        match self {
            Self::Cancelled
            | Self::DeadlineExceeded
            | Self::Aborted
            | Self::OutOfRange
            | Self::Unavailable
            | Self::DataLoss => true,
            Self::ResourceExhausted => with_pause,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_of_the_specification() {
        for (number, code) in GrpcCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, number);
            assert_eq!(GrpcCode::parse(number.to_string().as_bytes()), code);
        }
        for number in ["", "17", "-1", "+5", " 5", "x", "99999999999999999999"] {
            assert_eq!(GrpcCode::parse(number.as_bytes()), GrpcCode::Unknown);
        }
    }

    /// gRPC: HTTP to gRPC Status Code Mapping.
    #[test]
    fn an_answer_that_is_not_grpc_has_the_code_that_clients_make_of_it() {
        for (status, expected) in [
            (200, GrpcCode::Unknown),
            (400, GrpcCode::Internal),
            (401, GrpcCode::Unauthenticated),
            (403, GrpcCode::PermissionDenied),
            (404, GrpcCode::Unimplemented),
            (418, GrpcCode::Unknown),
            (429, GrpcCode::Unavailable),
            (500, GrpcCode::Unknown),
            (502, GrpcCode::Unavailable),
            (503, GrpcCode::Unavailable),
            (504, GrpcCode::Unavailable),
        ] {
            let code = GrpcCode::of_http(StatusCode::from_u16(status).unwrap());
            assert_eq!(code, expected, "{status}");
        }
    }
}
