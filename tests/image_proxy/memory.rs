//! What a worker takes for a picture is known before it is taken, and bounded.
// faults F21

use allocation_counter::measure;
use image::{DynamicImage, GenericImageView, ImageFormat, Rgba, RgbaImage};

use super::{
    options::ImagePath,
    pictures::{encoded, on_its_side},
    process::{ProcessError, process},
};

const PROGRESSIVE: &[u8] = include_bytes!("pictures/progressive.jpg");
const CMYK: &[u8] = include_bytes!("pictures/cmyk.jpg");
const LOSSY: &[u8] = include_bytes!("pictures/lossy_alpha.webp");
const ANIMATION: &[u8] = include_bytes!("pictures/animation_alpha.webp");
const WIDE: &[u8] = include_bytes!("pictures/wide_1bit.png");

/// What a worker has by default, in bytes.
const DEFAULT: u64 = 512 << 20;

/// Processes a picture, and counts the most bytes that were taken at once beside the source.
fn peak(source: &[u8], options: &str, memory: u64) -> (Result<Vec<u8>, ProcessError>, u64) {
    let path = ImagePath::parse(&format!("{options}/plain/http://origin/")).unwrap();
    let mut result = Ok(Vec::new());
    let taken = measure(|| {
        result = process(source, &path.options, memory).map(|result| result.bytes);
    });
    (result, taken.bytes_max)
}

/// What the service says that a picture needs, in bytes. It must not take it to find out.
fn needed(source: &[u8], options: &str) -> u64 {
    let (result, taken) = peak(source, options, 0);
    assert!(taken < 1 << 20, "{options}: {taken} bytes");
    match result {
        Err(ProcessError::TooMuchMemory { needed, .. }) => needed,
        other => panic!("{options}: {other:?}"),
    }
}

/// Tables of the codecs, which the smallest picture needs too, in bytes.
const SMALL: u64 = 512 << 10;

/// Noise in every channel, which no encoder can compress.
fn noise(width: u32, height: u32) -> DynamicImage {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    RgbaImage::from_fn(width, height, |_, _| Rgba([next(), next(), next(), next()])).into()
}

#[test]
fn no_picture_takes_more_than_was_said_before() {
    let rgba = noise(320, 240);
    let mut sources = vec![
        ("progressive", PROGRESSIVE.to_vec()),
        ("four inks", CMYK.to_vec()),
        (
            "profile",
            include_bytes!("pictures/icc_swapped.png").to_vec(),
        ),
        ("lossy with alpha", LOSSY.to_vec()),
        ("animation", ANIMATION.to_vec()),
        ("on its side", on_its_side(400, 300)),
        (
            "grey JPEG",
            encoded(&rgba.to_luma8().into(), ImageFormat::Jpeg),
        ),
        ("JPEG", encoded(&rgba.to_rgb8().into(), ImageFormat::Jpeg)),
        ("WebP", encoded(&rgba.to_rgb8().into(), ImageFormat::WebP)),
        ("WebP with alpha", encoded(&rgba, ImageFormat::WebP)),
    ];
    for (name, picture) in [
        ("L8", rgba.to_luma8().into()),
        ("La8", rgba.to_luma_alpha8().into()),
        ("Rgb8", rgba.to_rgb8().into()),
        ("Rgba8", rgba.clone()),
        ("L16", rgba.to_luma16().into()),
        ("La16", rgba.to_luma_alpha16().into()),
        ("Rgb16", rgba.to_rgb16().into()),
        ("Rgba16", rgba.to_rgba16().into()),
    ] {
        sources.push((name, encoded(&picture, ImageFormat::Png)));
    }
    for (name, source) in &sources {
        for options in [
            "f:png",
            "q:100/f:jpg",
            "f:webp",
            "w:100/f:png",
            "rs:force:400:400/f:png",
            "rs:force:400:400/f:webp",
            "rs:force:20:400/f:jpg",
            "rs:force:400:20/f:jpg",
            "rs:fill:200:200/f:png",
        ] {
            let needed = needed(source, options);
            let (result, taken) = peak(source, options, needed);
            result.unwrap_or_else(|error| panic!("{name}, {options}: {error}"));
            assert!(
                taken <= needed + SMALL,
                "{name}, {options}: {taken} of {needed}"
            );
        }
    }
}

#[test]
fn a_wide_picture_is_narrowed_before_it_is_heightened() {
    let (result, taken) = peak(WIDE, "rs:force:16:4096", DEFAULT);
    assert_eq!(
        image::load_from_memory(&result.unwrap())
            .unwrap()
            .dimensions(),
        (16, 4096)
    );
    // Two copies of a byte a pixel. In the other order it would be 16 bytes.
    let pixels = 12_200 * 4_097;
    assert!(taken < 5 * pixels / 2, "{taken}");
}

#[test]
fn a_picture_that_takes_too_much_is_refused() {
    let (result, taken) = peak(WIDE, "rs:force:4096:4096", 64 << 20);
    let error = result.unwrap_err();
    assert!(taken < 1 << 20, "{taken}");
    let sentence = "and a worker has 64: ask for a smaller size, or send a smaller source";
    assert!(error.to_string().ends_with(sentence), "{error}");
}
