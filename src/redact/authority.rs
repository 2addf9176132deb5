//! The authority of a URL (RFC 3986 §3.2).

/// How far after the authority the `@` of a password with unescaped characters is looked for.
const LONGEST_PASSWORD: usize = 256;

/// Where the parts of a URL are, up to the end of its authority.
#[derive(Debug)]
pub(super) struct Authority {
    /// Where the scheme starts, or the slashes if there is none.
    pub(super) scheme: usize,
    /// The colon after the scheme.
    pub(super) colon: Option<usize>,
    pub(super) start: usize,
    /// The `@` after the userinfo.
    pub(super) at: Option<usize>,
    pub(super) end: usize,
}

impl Authority {
    /// The authority of the URL whose scheme ends at `colon`: after `scheme://`, or after `http:`
    /// with any number of slashes and backslashes, as browsers read it and as proxies merge them.
    pub(super) fn at(bytes: &[u8], colon: usize) -> Option<Self> {
        let slashes = slashes(&bytes[colon + 1..]);
        let scheme = scheme_start(&bytes[..colon])?;
        let is_http = is_http(&bytes[scheme..colon]);
        if slashes < 2 && !is_http {
            return None;
        }
        // Other schemes may have no host: `file:///cat.jpg`.
        let skipped = if is_http { slashes } else { 2 };
        let start = colon + 1 + skipped;
        let bytes = match slashes {
            0 => &bytes[..bytes.len().min(start + LONGEST_PASSWORD)],
            _ => bytes,
        };
        let authority = Self::parse(bytes, scheme, Some(colon), start);
        (slashes > 0 || authority.at.is_some()).then_some(authority)
    }

    /// The authority after `//`, if it has credentials and no scheme before it. Within a path it
    /// must have a password too, because names of files may have an `@`.
    pub(super) fn without_scheme(bytes: &[u8], slash: usize) -> Option<Self> {
        let before = bytes[..slash].last().copied();
        if before.is_some_and(|byte| byte == b':' || is_slash(byte)) {
            return None;
        }
        let slashes = slashes(&bytes[slash..]);
        if slashes < 2 {
            return None;
        }
        let start = slash + slashes;
        let end = end_of_authority(bytes, start);
        let at = start + bytes[start..end].iter().rposition(|byte| *byte == b'@')?;
        let is_in_path =
            before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_.~%@)".contains(&byte));
        (!is_in_path || bytes[start..at].contains(&b':')).then_some(Self {
            scheme: slash,
            colon: None,
            start,
            at: Some(at),
            end,
        })
    }

    fn parse(bytes: &[u8], scheme: usize, colon: Option<usize>, start: usize) -> Self {
        let mut end = end_of_authority(bytes, start);
        let mut at = bytes[start..end].iter().rposition(|byte| *byte == b'@');
        if at.is_none() && !may_have_port(&bytes[start..end]) {
            // A password with an unescaped `/`, `?` or `#`.
            let rest = &bytes[end..bytes.len().min(end + LONGEST_PASSWORD)];
            let rest = rest.split(|byte| is_delimiter(*byte)).next();
            let length = rest.and_then(|rest| rest.iter().position(|byte| *byte == b'@'));
            at = length.map(|length| end - start + length);
            end = at.map_or(end, |at| end_of_authority(bytes, start + at));
        }
        Self {
            scheme,
            colon,
            start,
            at: at.map(|at| start + at),
            end,
        }
    }

    /// Where the host starts.
    pub(super) fn host(&self) -> usize {
        self.at.map_or(self.start, |at| at + 1)
    }

    pub(super) fn host_is_empty(&self) -> bool {
        self.host() == self.end
    }
}

/// Whether what follows the last colon of an authority may be a port or the end of an IPv6 address.
fn may_have_port(authority: &[u8]) -> bool {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else {
        return true;
    };
    let port = &authority[colon + 1..];
    !port.is_empty() && port.iter().all(u8::is_ascii_digit) || port.contains(&b']')
}

fn scheme_start(before_colon: &[u8]) -> Option<usize> {
    let is_of_scheme =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let run = before_colon.iter().rposition(|byte| !is_of_scheme(byte));
    let run = run.map_or(0, |end| end + 1);
    let letter = before_colon[run..]
        .iter()
        .position(u8::is_ascii_alphabetic)?;
    Some(run + letter)
}

fn is_http(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

fn slashes(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_slash(**byte)).count()
}

fn end_of_authority(bytes: &[u8], start: usize) -> usize {
    let ends = |byte: &u8| is_slash(*byte) || is_delimiter(*byte) || matches!(byte, b'?' | b'#');
    let length = bytes[start..].iter().position(ends);
    length.map_or(bytes.len(), |length| start + length)
}

/// Browsers read backslashes as slashes.
pub(super) fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

/// Whether no URL goes on at this byte, in a message or in markup.
pub(super) fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte.is_ascii_control() || matches!(byte, b'"' | b'<' | b'>')
}
