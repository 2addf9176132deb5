//! The geometry of a request: what is cut out of the source, and the size that this becomes.

use super::{
    super::options::{MAX_SIDE, Mode, Options},
    ProcessError,
};

/// The area that is cut out of the source, and the size that it is scaled to, in pixels.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) cut_width: u32,
    pub(crate) cut_height: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl Plan {
    pub(crate) fn of(source: (u32, u32), options: &Options) -> Result<Self, ProcessError> {
        let (width, height) = target(source, options);
        let same = (width, height) == source;
        if !same && (width > MAX_SIDE || height > MAX_SIDE) {
            return Err(ProcessError::ResultTooLarge { width, height });
        }
        let (cut_width, cut_height) = match options.mode {
            // Cutting before scaling saves the time and memory that the cut parts would take.
            Mode::Fill if !same => {
                let scale = scale(source, (width, height), f64::max);
                (
                    scaled(width, 1.0 / scale).min(source.0),
                    scaled(height, 1.0 / scale).min(source.1),
                )
            }
            _ => source,
        };
        Ok(Self {
            x: (source.0 - cut_width) / 2,
            y: (source.1 - cut_height) / 2,
            cut_width,
            cut_height,
            width,
            height,
        })
    }

    /// Whether the cut area is scaled to another size.
    pub(crate) fn scales(&self) -> bool {
        (self.width, self.height) != (self.cut_width, self.cut_height)
    }

    /// Whether the width is scaled before the height. Between the two steps there is a picture with one new
    /// and one old side, and this order makes it the smaller one.
    pub(crate) fn width_first(&self) -> bool {
        area(self.width, self.cut_height) < area(self.cut_width, self.height)
    }

    /// The pixels of the picture between the two steps.
    pub(crate) fn pixels_between(&self) -> u64 {
        area(self.width, self.cut_height).min(area(self.cut_width, self.height))
    }

    pub(crate) fn cut_pixels(&self) -> u64 {
        area(self.cut_width, self.cut_height)
    }

    pub(crate) fn pixels(&self) -> u64 {
        area(self.width, self.height)
    }
}

fn area(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height)
}

/// The size of the result, in pixels.
fn target(source: (u32, u32), options: &Options) -> (u32, u32) {
    let asked = match (options.width, options.height) {
        (0, 0) => return source,
        (0, height) => (
            scaled(source.0, f64::from(height) / f64::from(source.1)),
            height,
        ),
        (width, 0) => (
            width,
            scaled(source.1, f64::from(width) / f64::from(source.0)),
        ),
        both => both,
    };
    match options.mode {
        Mode::Fit => {
            let scale = scale(source, asked, f64::min).min(1.0);
            (scaled(source.0, scale), scaled(source.1, scale))
        }
        Mode::Fill | Mode::Force => asked,
    }
}

fn scale(from: (u32, u32), to: (u32, u32), choose: fn(f64, f64) -> f64) -> f64 {
    let horizontal = f64::from(to.0) / f64::from(from.0);
    let vertical = f64::from(to.1) / f64::from(from.1);
    choose(horizontal, vertical)
}

fn scaled(side: u32, scale: f64) -> u32 {
    ((f64::from(side) * scale).round() as u32).max(1)
}
