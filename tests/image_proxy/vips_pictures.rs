//! libvips makes the same pictures as the `image` crate, and its memory is measured.

use image::{Rgba, RgbaImage};
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

/// More than any picture of these tests needs.
const MEMORY: u64 = 1 << 30;

/// The mean difference of the channel values, which are 0 to 255. Invisible colours do not count.
fn difference(one: &RgbaImage, other: &RgbaImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let visible = |Rgba([red, green, blue, alpha]): &Rgba<u8>| {
        let color = [red, green, blue].map(|color| f64::from(*color) * f64::from(*alpha) / 255.0);
        [color[0], color[1], color[2], f64::from(*alpha)]
    };
    let pairs = one.pixels().zip(other.pixels());
    let sum: f64 = pairs
        .map(|(one, other)| {
            let pairs = visible(one).into_iter().zip(visible(other));
            pairs.map(|(one, other)| (one - other).abs()).sum::<f64>()
        })
        .sum();
    sum / one.len() as f64
}

#[test]
fn pictures_are_those_of_the_image_crate() {
    // faults E2, E3
    for source in [
        CHELSEA,
        ROCKET,
        HUBBLE,
        include_bytes!("pictures/fringe.png"),
        include_bytes!("pictures/icc_swapped.jpg"),
        include_bytes!("pictures/icc_swapped.png"),
        include_bytes!("pictures/cmyk.jpg"),
    ] {
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
                let result = process(source, &path.options, MEMORY).unwrap();
                let picture = image::load_from_memory(&result.bytes).unwrap().into_rgba8();
                assert_eq!(picture.dimensions(), (result.width, result.height));
                picture
            });
            let difference = difference(&results[0], &results[1]);
            assert!(difference < 4.0, "{options}: {difference}");
        }
    }
}

#[test]
fn what_is_no_picture_is_refused() {
    let path = ImagePath::parse("w:9/plain/http://origin/").unwrap();
    let error = vips::process(b"no picture", &path.options, MEMORY).unwrap_err();
    assert!(matches!(error, ProcessError::NotAPicture), "{error:?}");
    let error = vips::process(&CHELSEA[..100], &path.options, MEMORY).unwrap_err();
    assert!(matches!(error, ProcessError::Vips(_)), "{error:?}");
}

#[test]
fn limits_and_animations_are_those_of_the_image_crate() {
    // faults E1, E6, F21
    let path = |options| ImagePath::parse(&format!("{options}/plain/http://origin/")).unwrap();
    let wide = include_bytes!("pictures/wide17000.png");
    let error = vips::process(wide, &path("f:webp").options, MEMORY).unwrap_err();
    assert!(
        matches!(error, ProcessError::FormatLimit { .. }),
        "{error:?}"
    );
    let error = vips::process(wide, &path("w:9").options, 1 << 20).unwrap_err();
    assert!(
        matches!(error, ProcessError::TooMuchMemory { .. }),
        "{error:?}"
    );
    let animation = include_bytes!("pictures/anim.webp");
    assert!(
        vips::process(animation, &path("w:9").options, MEMORY)
            .unwrap()
            .animated
    );
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
