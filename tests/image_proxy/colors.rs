//! Colours stay as they are seen: through transparency, and through ICC profiles.

use image::{
    DynamicImage, ExtendedColorType, GenericImageView, ImageDecoder, ImageEncoder, ImageFormat,
    ImageReader, LumaA, Rgb, Rgba,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use moxcms::ColorProfile;

use super::{
    pictures::{encoded, picture, processed},
    process::color::Profile,
};

/// Every way to another size: both orders of the sides, smaller, larger, and cut.
const RESIZES: [&str; 7] = [
    "w:50",
    "rs:fit:33:33",
    "rs:fill:20:60",
    "rs:force:10:90",
    "rs:force:90:10",
    "rs:force:150:150",
    "rs:fill:200:37",
];

/// The colour of invisible pixels does not show at the edge of the visible ones.
#[test]
fn transparent_pixels_have_no_colour() {
    // faults E2
    let fringe = include_bytes!("pictures/fringe.png");
    let eight_bits = image::load_from_memory(fringe).unwrap();
    let sixteen_bits = encoded(&eight_bits.to_rgba16().into(), ImageFormat::Png);
    for source in [&fringe[..], &sixteen_bits] {
        for resize in RESIZES {
            for format in ["png", "webp"] {
                let options = format!("{resize}/f:{format}");
                let picture = picture(source, &options).into_rgba8();
                let mut edge = 0;
                for Rgba([red, green, blue, alpha]) in picture.pixels() {
                    let seen = (*red, *green, *blue) == (255, 0, 0);
                    assert!(
                        seen || *alpha == 0,
                        "{options}: {red} {green} {blue} {alpha}"
                    );
                    edge += usize::from((1..255).contains(alpha));
                }
                assert!(edge > 0, "{options} has no edge");
            }
            // On white, red becomes lighter towards the edge.
            let options = format!("{resize}/q:100/f:jpg");
            for Rgb([red, green, blue]) in picture(source, &options).into_rgb8().pixels() {
                assert!(*red > 245, "{options}: {red} {green} {blue}");
            }
        }
    }
    let grey = image::GrayAlphaImage::from_fn(100, 100, |x, _| match x {
        0..50 => LumaA([200, 255]),
        _ => LumaA([0, 0]),
    });
    let grey = encoded(&grey.into(), ImageFormat::Png);
    for resize in RESIZES {
        for LumaA([luma, alpha]) in picture(&grey, resize).into_luma_alpha8().pixels() {
            // The filter makes an edge a little sharper.
            let seen = luma.abs_diff(200) < 2;
            assert!(seen || *alpha == 0, "{resize}: {luma} {alpha}");
        }
    }
}

/// The source in a format, with an ICC profile.
fn with_profile(picture: &DynamicImage, format: ImageFormat, icc: &[u8]) -> Vec<u8> {
    fn write(mut encoder: impl ImageEncoder, picture: &DynamicImage, icc: &[u8]) {
        encoder.set_icc_profile(icc.to_vec()).unwrap();
        let (width, height) = picture.dimensions();
        let color = ExtendedColorType::from(picture.color());
        encoder
            .write_image(picture.as_bytes(), width, height, color)
            .unwrap();
    }
    let mut bytes = Vec::new();
    match format {
        ImageFormat::Jpeg => write(JpegEncoder::new_with_quality(&mut bytes, 100), picture, icc),
        ImageFormat::Png => write(PngEncoder::new(&mut bytes), picture, icc),
        _ => write(WebPEncoder::new_lossless(&mut bytes), picture, icc),
    }
    bytes
}

/// The middle of the result in sRGB, which is what a result without a profile is in.
fn middle(source: &[u8], options: &str) -> [u8; 3] {
    let result = processed(source, options).unwrap();
    assert_eq!(result.profile, Profile::Converted, "{options}");
    let reader = ImageReader::new(std::io::Cursor::new(&result.bytes));
    let mut decoder = reader
        .with_guessed_format()
        .unwrap()
        .into_decoder()
        .unwrap();
    assert_eq!(decoder.icc_profile().unwrap(), None, "{options}");
    let picture = picture(source, options).into_rgb8();
    picture
        .get_pixel(picture.width() / 2, picture.height() / 2)
        .0
}

fn assert_near(seen: [u8; 3], expected: [u8; 3], what: &str) {
    let near = seen
        .iter()
        .zip(expected)
        .all(|(seen, expected)| seen.abs_diff(expected) <= 4);
    assert!(near, "{what}: {seen:?}, not {expected:?}");
}

const RESULTS: [&str; 6] = [
    "q:100/f:jpg",
    "f:png",
    "f:webp",
    "rs:force:20:10/q:100/f:jpg",
    "rs:force:10:20/f:png",
    "rs:fill:9:9/f:webp",
];

/// Red as it is stored is green as it is seen.
#[test]
fn a_colour_profile_is_applied() {
    // faults E3
    let jpeg = include_bytes!("pictures/icc_swapped.jpg");
    let png = include_bytes!("pictures/icc_swapped.png");
    let mut decoder = image::codecs::png::PngDecoder::new(std::io::Cursor::new(png)).unwrap();
    let icc = decoder.icc_profile().unwrap().unwrap();
    let stored = DynamicImage::from_decoder(decoder).unwrap();
    let mut sources = vec![
        ("JPEG".to_owned(), jpeg.to_vec()),
        ("PNG".to_owned(), png.to_vec()),
    ];
    for picture in [
        stored.to_rgb16().into(),
        stored.to_rgba8().into(),
        stored.to_rgba16().into(),
    ] {
        let name = format!("PNG {:?}", DynamicImage::color(&picture));
        sources.push((name, with_profile(&picture, ImageFormat::Png, &icc)));
    }
    for picture in [stored.to_rgb8().into(), stored.to_rgba8().into()] {
        let name = format!("WebP {:?}", DynamicImage::color(&picture));
        sources.push((name, with_profile(&picture, ImageFormat::WebP, &icc)));
    }
    for (name, source) in sources {
        for options in RESULTS {
            assert_near(
                middle(&source, options),
                [0, 255, 0],
                &format!("{name} {options}"),
            );
        }
    }
}

/// Half of the light is 188 of 255 in sRGB.
#[test]
fn a_grey_profile_is_applied() {
    // faults E3
    let linear = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    let stored = DynamicImage::from(image::GrayImage::from_pixel(30, 30, image::Luma([128])));
    let mut sources = vec![("JPEG", with_profile(&stored, ImageFormat::Jpeg, &linear))];
    for (name, picture) in [
        ("L8", stored.to_luma8().into()),
        ("La8", stored.to_luma_alpha8().into()),
        ("L16", stored.to_luma16().into()),
        ("La16", stored.to_luma_alpha16().into()),
    ] {
        sources.push((name, with_profile(&picture, ImageFormat::Png, &linear)));
    }
    for (name, source) in sources {
        for options in RESULTS {
            assert_near(
                middle(&source, options),
                [188; 3],
                &format!("{name} {options}"),
            );
        }
        // Grey stays grey, which takes a third of the bytes.
        let picture = picture(&source, "f:png");
        assert!(!picture.color().has_color(), "{name}");
    }
}

/// Some editors give a grey picture the profile of their colours.
#[test]
fn a_colour_profile_of_a_grey_picture_is_applied() {
    // faults E3
    let mut linear = ColorProfile::new_srgb();
    let curve = ColorProfile::new_gray_with_gamma(1.0).gray_trc;
    (linear.red_trc, linear.green_trc, linear.blue_trc) = (curve.clone(), curve.clone(), curve);
    linear.cicp = None;
    let linear = linear.encode().unwrap();
    let stored = DynamicImage::from(image::GrayImage::from_pixel(30, 30, image::Luma([128])));
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let source = with_profile(&stored, format, &linear);
        for options in RESULTS {
            assert_near(
                middle(&source, options),
                [188; 3],
                &format!("{format:?} {options}"),
            );
        }
    }
}

/// The profile says that cyan, magenta and yellow look green, red and blue.
#[test]
fn the_profile_of_four_inks_is_applied() {
    // faults E3
    for source in [
        &include_bytes!("pictures/cmyk.jpg")[..],
        include_bytes!("pictures/ycck.jpg"),
    ] {
        for format in ["jpg", "png", "webp"] {
            let options = format!("q:100/f:{format}");
            middle(source, &options);
            let picture = picture(source, &options).into_rgb8();
            let inks = [7, 22, 37, 52].map(|x| picture.get_pixel(x, 15).0);
            let bright = |color: [u8; 3]| color.map(|channel| channel > 127);
            assert_eq!(
                inks.map(bright),
                [
                    [false, true, false],
                    [true, false, false],
                    [false, false, true],
                    [false; 3]
                ],
                "{inks:?}"
            );
        }
    }
}

#[test]
fn a_profile_that_cannot_be_used_is_ignored() {
    // faults E3
    let stored = DynamicImage::from(image::RgbImage::from_pixel(30, 30, Rgb([10, 20, 200])));
    let grey = ColorProfile::new_gray_with_gamma(2.2).encode().unwrap();
    for (icc, what) in [(&b"no profile"[..], "broken"), (&grey, "grey of colours")] {
        let source = with_profile(&stored, ImageFormat::Png, icc);
        let result = processed(&source, "f:png").unwrap();
        assert_eq!(result.profile, Profile::Ignored, "{what}");
        assert_near(
            picture(&source, "f:png").into_rgb8().get_pixel(5, 5).0,
            [10, 20, 200],
            what,
        );
    }
    let plain = encoded(&stored, ImageFormat::Png);
    assert_eq!(processed(&plain, "w:9").unwrap().profile, Profile::None);
}
