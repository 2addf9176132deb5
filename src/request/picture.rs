//! What stages say of pictures and caches, on their spans and in metrics.

use opentelemetry::KeyValue;

use super::Stage;
use crate::{attribute, semconv::int};

/// What is known of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Picture {
    /// `jpeg`, `png`, `webp` … It is also an attribute of the metrics.
    pub format: &'static str,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The size of the encoded picture, in bytes.
    pub size: u64,
}

impl Picture {
    fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn attributes(&self, names: [&'static str; 4]) -> [KeyValue; 4] {
        let [format, width, height, size] = names;
        [
            KeyValue::new(format, self.format),
            KeyValue::new(width, i64::from(self.width)),
            KeyValue::new(height, i64::from(self.height)),
            KeyValue::new(size, int(self.size)),
        ]
    }
}

/// What was found in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Cache {
    /// What was looked for.
    Hit,
    /// Nothing.
    Miss,
}

impl Cache {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

impl Stage {
    /// Says what picture came in: on the stage's span as `image.source.format`, `.width`, `.height` and
    /// `.size`, and in the metrics `image.source.pixels` and `image.source.size`.
    ///
    /// ```
    /// use tower_image_trace::{RequestTrace, request::Picture};
    ///
    /// # let trace = RequestTrace::default();
    /// let stage = trace.process("rs:fit:300:200");
    /// stage.source_picture(&Picture { format: "jpeg", width: 4000, height: 3000, size: 2_500_000 });
    /// stage.result_picture(&Picture { format: "webp", width: 267, height: 200, size: 9_800 });
    /// ```
    pub fn source_picture(&self, picture: &Picture) {
        let names = [
            attribute::SOURCE_FORMAT,
            attribute::SOURCE_WIDTH,
            attribute::SOURCE_HEIGHT,
            attribute::SOURCE_SIZE,
        ];
        self.set_attributes(picture.attributes(names));
        if let Some(metrics) = self.picture_metrics() {
            metrics.source(picture.format, picture.pixels(), picture.size);
        }
    }

    /// Says what picture goes out: on the stage's span as `image.result.format`, `.width`, `.height` and
    /// `.size`, and in the metrics `image.result.pixels` and `image.result.size`.
    pub fn result_picture(&self, picture: &Picture) {
        let names = [
            attribute::RESULT_FORMAT,
            attribute::RESULT_WIDTH,
            attribute::RESULT_HEIGHT,
            attribute::RESULT_SIZE,
        ];
        self.set_attributes(picture.attributes(names));
        if let Some(metrics) = self.picture_metrics() {
            metrics.result(picture.format, picture.pixels(), picture.size);
        }
    }

    /// Says whether the source was in a cache: `image.source.cache` of the stage's span and of its
    /// duration.
    ///
    /// ```
    /// use tower_image_trace::{RequestTrace, request::Cache};
    ///
    /// # let trace = RequestTrace::default();
    /// let stage = trace.download("https://cdn.example/cat.jpg");
    /// stage.source_cache(Cache::Hit);
    /// ```
    pub fn source_cache(&self, found: Cache) {
        self.cache(KeyValue::new(attribute::SOURCE_CACHE, found.as_str()));
    }

    /// Says whether the result was in a cache: `image.result.cache` of the stage's span and of its
    /// duration.
    pub fn result_cache(&self, found: Cache) {
        self.cache(KeyValue::new(attribute::RESULT_CACHE, found.as_str()));
    }

    fn cache(&self, found: KeyValue) {
        self.set_attributes([found.clone()]);
        self.metric_attribute(found);
    }
}
