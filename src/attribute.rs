//! The names of the crate's own span attributes.
//!
//! Attributes that OpenTelemetry's semantic conventions define keep their names (`http.*`, `url.*`,
//! `server.*`, `error.type` …). Those of image services are listed here, under `image.`.

/// Root span: the phase in which the request was cancelled. The name of the innermost running stage
/// (`queue`, `downloading_image` …), or `handler`, or `response_body`: the response was dropped before its
/// end, whatever its status was. String.
pub const REQUEST_CANCELLED: &str = "image.request.cancelled";
/// Stage span: `true` when the stage was dropped before it was done, or its request was cancelled
/// while it ran. Client span of a download: `true` when it was dropped before its response was
/// complete. Boolean.
pub const STAGE_CANCELLED: &str = "image.stage.cancelled";
/// Stage span: the CPU time of its blocking work, in seconds (Linux). Double.
pub const STAGE_CPU_TIME: &str = "image.stage.cpu_time";
/// Download stage: the URL of the source, without credentials and signatures. String.
pub const SOURCE_URL: &str = "image.source.url";
/// Download stage: scheme, host and port of the source, as in RFC 6454. String.
pub const SOURCE_ORIGIN: &str = "image.source.origin";
/// The size of the encoded source, in bytes. Integer.
pub const SOURCE_SIZE: &str = "image.source.size";
/// Whether the source was in a cache: `hit` or `miss`. String, also of the stage's duration.
pub const SOURCE_CACHE: &str = "image.source.cache";
/// The format of the source: `jpeg`, `png`, `webp` … String.
pub const SOURCE_FORMAT: &str = "image.source.format";
/// The width of the source, in pixels. Integer.
pub const SOURCE_WIDTH: &str = "image.source.width";
/// The height of the source, in pixels. Integer.
pub const SOURCE_HEIGHT: &str = "image.source.height";
/// Whether the source is an animation, of which only the first frame was processed. Boolean.
pub const SOURCE_ANIMATED: &str = "image.source.animated";
/// What became of the source's ICC profile: `none`, `converted` or `kept`, or `ignored` if it could
/// not be used. String.
pub const SOURCE_COLOR_PROFILE: &str = "image.source.color_profile";
/// Processing stage: the options as the service names them. String.
pub const PROCESSING_OPTIONS: &str = "image.processing.options";
/// The size of the encoded result, in bytes. Integer.
pub const RESULT_SIZE: &str = "image.result.size";
/// Whether the result was in a cache: `hit` or `miss`. String, also of the stage's duration.
pub const RESULT_CACHE: &str = "image.result.cache";
/// The format of the result. String.
pub const RESULT_FORMAT: &str = "image.result.format";
/// The width of the result, in pixels. Integer.
pub const RESULT_WIDTH: &str = "image.result.width";
/// The height of the result, in pixels. Integer.
pub const RESULT_HEIGHT: &str = "image.result.height";

/// Root span: why its trace is kept, where that is decided at its end (`Keep`): `parent`, `forced`, `errors`,
/// `cancelled`, `slow`, `rule` or `ratio`. String.
pub const TRACE_KEPT: &str = "image.trace.kept";

pub(crate) const ERROR_TYPE: &str = "error.type";
