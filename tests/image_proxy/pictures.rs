//! Results have the requested size and format, and broken or oversized sources are refused.

use image::{
    DynamicImage, ExtendedColorType, GenericImageView, ImageEncoder, ImageFormat, Rgb, RgbImage,
    Rgba, RgbaImage, codecs::jpeg::JpegEncoder,
};

use super::{
    options::{Format, ImagePath},
    process::{ProcessError, Processed, process},
};

const CHELSEA: &[u8] = include_bytes!("../../examples/image_proxy/images/chelsea.png");
const ROCKET: &[u8] = include_bytes!("../../examples/image_proxy/images/rocket.jpg");

/// More than any picture of these tests needs.
const MEMORY: u64 = 1 << 30;

pub(super) fn processed(source: &[u8], options: &str) -> Result<Processed, ProcessError> {
    let path = ImagePath::parse(&format!("{options}/plain/http://origin/")).unwrap();
    process(source, &path.options, MEMORY)
}

/// The decoded result.
pub(super) fn picture(source: &[u8], options: &str) -> DynamicImage {
    let result = processed(source, options).unwrap();
    let picture = image::load_from_memory(&result.bytes).unwrap();
    assert_eq!(
        picture.dimensions(),
        (result.width, result.height),
        "{options}"
    );
    picture
}

pub(super) fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn a_result_has_the_size_asked_for() {
    // chelsea.png is 451 × 300, rocket.jpg 640 × 427.
    for (source, options, expected) in [
        (CHELSEA, "rs:fit:300:300", (300, 200)),
        (CHELSEA, "rs:fit:200:20", (30, 20)),
        (CHELSEA, "rs:fit:4000:4000", (451, 300)),
        (CHELSEA, "rs:fit:0:150", (226, 150)),
        (CHELSEA, "rs:fit:45:0", (45, 30)),
        (CHELSEA, "rs:fill:100:100", (100, 100)),
        (CHELSEA, "rs:fill:500:40", (500, 40)),
        (CHELSEA, "rs:fill:40:500", (40, 500)),
        (CHELSEA, "rs:fill:0:60", (90, 60)),
        (CHELSEA, "rs:force:100:100", (100, 100)),
        (CHELSEA, "rs:force:1:500", (1, 500)),
        (CHELSEA, "q:80", (451, 300)),
        (ROCKET, "rs:fit:64:64", (64, 43)),
        (ROCKET, "rs:fill:64:64", (64, 64)),
    ] {
        assert_eq!(picture(source, options).dimensions(), expected, "{options}");
    }
}

/// The source has a red, a green and a blue stripe. Fill keeps the middle one, force and fit keep all.
#[test]
fn fill_cuts_and_force_squeezes() {
    let stripes = RgbImage::from_fn(90, 30, |x, _| {
        let mut pixel = Rgb([0; 3]);
        pixel.0[x as usize / 30] = 255;
        pixel
    });
    let stripes = encoded(&stripes.into(), ImageFormat::Png);
    let corners = |options: &str| {
        let picture = picture(&stripes, options).into_rgb8();
        let last = picture.width() - 1;
        [picture.get_pixel(0, 0).0, picture.get_pixel(last, 0).0]
    };
    let (red, green, blue) = ([255, 0, 0], [0, 255, 0], [0, 0, 255]);
    assert_eq!(corners("rs:fill:30:30"), [green, green]);
    assert_eq!(corners("rs:force:30:30"), [red, blue]);
    assert_eq!(corners("rs:fit:30:30"), [red, blue]);
}

#[test]
fn every_format_becomes_every_format() {
    let source = image::load_from_memory(CHELSEA).unwrap();
    for from in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let source = encoded(&source, from);
        for (option, to, format) in [
            ("f:jpg", Some(ImageFormat::Jpeg), Format::Jpeg),
            ("f:png", Some(ImageFormat::Png), Format::Png),
            ("f:webp", Some(ImageFormat::WebP), Format::WebP),
            ("q:80", None, Format::from_image(from).unwrap()),
        ] {
            let result = processed(&source, &format!("w:90/{option}")).unwrap();
            assert_eq!(
                image::guess_format(&result.bytes).unwrap(),
                to.unwrap_or(from)
            );
            assert_eq!(result.format, format);
            assert_eq!(Some(result.source_format), Format::from_image(from));
            assert_eq!((result.source_width, result.source_height), (451, 300));
            let picture = image::load_from_memory(&result.bytes).unwrap();
            assert_eq!(picture.dimensions(), (90, 60), "{from:?} to {format:?}");
        }
    }
}

#[test]
fn quality_decides_the_size_of_a_jpeg() {
    let size = |quality| {
        processed(ROCKET, &format!("w:300/q:{quality}"))
            .unwrap()
            .bytes
            .len()
    };
    assert!(size(10) * 2 < size(60));
    assert!(size(60) * 2 < size(100));
}

#[test]
fn transparency_shows_white_on_a_jpeg_and_stays_elsewhere() {
    let source = RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 0]));
    let source = encoded(&source.into(), ImageFormat::Png);
    assert_eq!(
        picture(&source, "f:jpg").into_rgb8().get_pixel(4, 4),
        &Rgb([255; 3])
    );
    for option in ["f:png", "f:webp"] {
        assert_eq!(
            picture(&source, option).into_rgba8().get_pixel(4, 4).0[3],
            0,
            "{option}"
        );
    }
    let half = RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 128]));
    let half = encoded(&half.into(), ImageFormat::Png);
    let grey = picture(&half, "f:jpg/q:100").into_rgb8().get_pixel(4, 4).0[0];
    assert!((126..=128).contains(&grey), "{grey}");
}

#[test]
fn sixteen_bits_a_channel_are_read() {
    let source = image::ImageBuffer::from_pixel(8, 8, Rgba([65535_u16, 0, 0, 65535]));
    let source = encoded(&DynamicImage::ImageRgba16(source), ImageFormat::Png);
    for option in ["f:jpg", "f:png", "f:webp"] {
        let red = picture(&source, option).into_rgb8().get_pixel(4, 4).0[0];
        assert!(red > 250, "{option}: {red}");
    }
}

/// A JPEG that must be turned by a quarter.
pub(super) fn on_its_side(width: u32, height: u32) -> Vec<u8> {
    // Exif, big endian, with one entry: orientation 6, a quarter turn to the right.
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let mut source = Vec::new();
    let mut encoder = JpegEncoder::new(&mut source);
    encoder.set_exif_metadata(exif.to_vec()).unwrap();
    let pixels = RgbImage::new(width, height);
    encoder
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .unwrap();
    source
}

#[test]
fn a_photograph_is_turned_upright() {
    let source = on_its_side(40, 20);
    assert_eq!(picture(&source, "rs:fit:10:20").dimensions(), (10, 20));
}

/// A picture of one pixel whose header claims a huge size.
fn bomb(format: ImageFormat) -> Vec<u8> {
    let mut bytes = encoded(&RgbImage::new(1, 1).into(), format);
    match format {
        // IHDR is always first. It gets the size 50000 × 50000 and a matching checksum.
        ImageFormat::Png => {
            bytes[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
            bytes[29..33].copy_from_slice(&PNG_CHECKSUM.to_be_bytes());
        }
        ImageFormat::Jpeg => {
            let frame = bytes
                .windows(2)
                .position(|marker| marker == [0xff, 0xc0])
                .unwrap();
            bytes[frame + 5..frame + 9].copy_from_slice(&[0xc3, 0x50, 0xc3, 0x50]);
        }
        // VP8L has 14 bits for each side minus one, after 20 bytes of container and a signature byte.
        _ => {
            let sides =
                u32::from_le_bytes(bytes[21..25].try_into().unwrap()) | 0x3ffe << 14 | 0x3ffe;
            bytes[21..25].copy_from_slice(&sides.to_le_bytes());
        }
    }
    bytes
}

const PNG_CHECKSUM: u32 = 0xc4cdaa9d;

#[test]
fn a_decompression_bomb_is_refused() {
    for (format, side) in [
        (ImageFormat::Png, 50_000),
        (ImageFormat::Jpeg, 50_000),
        (ImageFormat::WebP, 16_383),
    ] {
        let error = processed(&bomb(format), "rs:fit:10:10").unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the source is {side} × {side} pixels, and at most 50 million are accepted"),
            "{format:?}"
        );
    }
}

#[test]
fn a_small_source_of_an_extreme_aspect_ratio_stays_small() {
    let needle = encoded(&RgbImage::new(1, 5000).into(), ImageFormat::Png);
    let error = processed(&needle, "rs:force:4096:0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the result would be 4096 × 20480000 pixels, and a side has at most 4096"
    );
    assert_eq!(picture(&needle, "rs:fill:40:40").dimensions(), (40, 40));
    // Resized in one step, this would take 65 GB.
    let thread = encoded(&RgbImage::new(1_000_000, 1).into(), ImageFormat::Png);
    assert_eq!(
        picture(&thread, "rs:force:64:4096").dimensions(),
        (64, 4096)
    );
}

#[test]
fn what_is_no_picture_is_refused() {
    let gif = b"GIF89a\x01\0\x01\0\0\0\0;";
    for source in [&b"not a picture"[..], b"", gif] {
        let error = processed(source, "w:10").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the source is not a JPEG, PNG or WebP picture"
        );
    }
    for source in [&CHELSEA[..1000], &CHELSEA[..20], &ROCKET[..100]] {
        let error = processed(source, "w:10").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the source is a broken picture",
            "{}",
            source.len()
        );
    }
}

/// The limits of the formats are the client's business, not an error of the service.
#[test]
fn a_side_beyond_the_limit_of_the_format_is_refused() {
    // faults E1
    let wide = include_bytes!("pictures/wide17000.png");
    let error = processed(wide, "f:webp").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the result would be 17000 × 10 pixels, and a side of a webp picture has at most 16383: \
         ask for a smaller size or for another format"
    );
    assert_eq!(picture(wide, "f:jpg").dimensions(), (17_000, 10));
    assert_eq!(picture(wide, "f:png").dimensions(), (17_000, 10));
    assert_eq!(picture(wide, "w:1700/f:webp").dimensions(), (1_700, 1));

    for (side, options, accepted) in [
        (16_383, "f:webp", true),
        (16_384, "f:webp", false),
        (65_535, "f:jpg", true),
        (65_536, "f:jpg", false),
        (65_536, "f:png", true),
    ] {
        for (width, height) in [(side, 1), (1, side)] {
            let source = encoded(&RgbImage::new(width, height).into(), ImageFormat::Png);
            let result = processed(&source, options);
            match result {
                Ok(result) => assert!(accepted && result.width == width, "{side} {options}"),
                Err(ProcessError::FormatLimit { .. }) => assert!(!accepted, "{side} {options}"),
                Err(error) => panic!("{side} {options}: {error}"),
            }
        }
    }
    // What a format allows is read too.
    let jpeg = encoded(&RgbImage::new(65_535, 1).into(), ImageFormat::Jpeg);
    assert_eq!(picture(&jpeg, "w:4096").dimensions(), (4_096, 1));
    let webp = encoded(&RgbImage::new(16_383, 1).into(), ImageFormat::WebP);
    assert_eq!(picture(&webp, "q:80").dimensions(), (16_383, 1));
}

#[test]
fn the_first_frame_of_an_animation_is_processed() {
    // faults E6
    for source in [
        &include_bytes!("pictures/anim.webp")[..],
        include_bytes!("pictures/animation.png"),
    ] {
        for options in ["f:png", "w:10/f:webp", "f:jpg"] {
            let result = processed(source, options).unwrap();
            assert!(result.animated);
            let Rgb([red, green, blue]) = *picture(source, options).into_rgb8().get_pixel(5, 5);
            assert!(red > 200 && green < 50 && blue < 50, "{red} {green} {blue}");
        }
    }
    assert!(!processed(CHELSEA, "w:10").unwrap().animated);
}
