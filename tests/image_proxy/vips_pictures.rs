//! libvips makes the same pictures as the `image` crate, and its memory is measured.

use image::RgbaImage;
use rs_vips::VipsImage;
use tower_image_trace::metrics::Gauges;

use super::{
    options::ImagePath,
    process::{ProcessError, process},
    vips,
};
use crate::support::Recorder;

const CHELSEA: &[u8] = include_bytes!("../../examples/image_proxy/images/chelsea.png");
const ROCKET: &[u8] = include_bytes!("../../examples/image_proxy/images/rocket.jpg");
const HUBBLE: &[u8] = include_bytes!("../../examples/image_proxy/images/hubble_deep_field.jpg");

/// The mean difference of the channel values, which are 0 to 255.
fn difference(one: &RgbaImage, other: &RgbaImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let pairs = one.iter().zip(other.iter());
    let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / one.len() as f64
}

#[test]
fn pictures_are_those_of_the_image_crate() {
    for source in [CHELSEA, ROCKET, HUBBLE] {
        for options in [
            "q:80/f:png",
            "rs:fit:300:200/f:png",
            "rs:fill:200:200/f:png",
            "rs:force:100:250/f:png",
            "rs:fit:300:200/f:webp",
            "rs:fit:300:200/q:90/f:jpg",
        ] {
            let path = ImagePath::parse(&format!("{options}/plain/http://origin/")).unwrap();
            let results = [process, vips::process].map(|process| {
                let result = process(source, &path.options).unwrap();
                let picture = image::load_from_memory(&result.bytes).unwrap().into_rgba8();
                assert_eq!(picture.dimensions(), (result.width, result.height));
                picture
            });
            let difference = difference(&results[0], &results[1]);
            assert!(difference < 3.0, "{options}: {difference}");
        }
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    let path = ImagePath::parse("w:9/plain/http://origin/").unwrap();
    let error = vips::process(b"no picture", &path.options).unwrap_err();
    assert!(matches!(error, ProcessError::NotAPicture), "{error:?}");
    let error = vips::process(&CHELSEA[..100], &path.options).unwrap_err();
    assert!(matches!(error, ProcessError::Vips(_)), "{error:?}");
}

#[test]
fn memory_is_seen_during_work() {
    let recorder = Recorder::new();
    let gauges = Gauges::new(&recorder.meters);
    gauges.vips();
    vips::start().unwrap();
    let picture = VipsImage::new_from_buffer(CHELSEA, "").unwrap();
    let pixels = picture.copy_memory().unwrap();
    // 451 × 300 pixels with three bytes each.
    let memory = recorder.only_series("vips_memory_bytes").sum;
    assert!(memory >= 405_900.0, "{memory}");
    assert!(recorder.only_series("vips_allocs").sum >= 1.0);
    drop(pixels);
    let most = recorder.only_series("vips_max_memory_bytes").sum;
    assert!(most >= memory, "{most}");
}
