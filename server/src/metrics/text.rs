//! The two texts that scrapers read: OpenMetrics, which the library writes, and Prometheus' older one (0.0.4), which
//! differs from it in this: a counter is described under its whole name, units have no line, the end is the end.

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

/// How the metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`: what a person sees, and what any scraper reads.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// What whoever sent these headers reads.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let accepts = |value: &str| value.contains("application/openmetrics-text");
        match headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(accepts) {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

pub(super) fn render(registries: &[Registry], format: Format) -> String {
    let mut text = String::new();
    // Writing to a string does not fail, and no collector of ours does.
    for registry in registries {
        let _ = encode_registry(&mut text, registry);
    }
    match format {
        Format::Prometheus => older(&text),
        Format::OpenMetrics => {
            let _ = encode_eof(&mut text);
            text
        }
    }
}

fn older(text: &str) -> String {
    let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
    let mut lines = text.lines().filter(|line| !line.starts_with("# UNIT ")).peekable();
    let mut older = String::with_capacity(text.len());
    while let Some(line) = lines.next() {
        let describes = line.starts_with("# HELP ") && lines.peek().is_some_and(|next| is_counter(next));
        let renamed = if describes || is_counter(line) { with_total(line) } else { None };
        older.push_str(renamed.as_deref().unwrap_or(line));
        older.push('\n');
    }
    older
}

/// `# HELP name ...` with the name as it is in the samples.
fn with_total(line: &str) -> Option<String> {
    let (head, rest) = line.split_at_checked("# HELP ".len())?;
    let (name, rest) = rest.split_once(' ')?;
    Some(format!("{head}{name}_total {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_text_has_counters_by_their_whole_name() {
        let newer = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1\n\
                     # HELP b It.\n# TYPE b gauge\nb{x=\"# TYPE y counter\"} 2\n";
        let text = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total 1\n\
                    # HELP b It.\n# TYPE b gauge\nb{x=\"# TYPE y counter\"} 2\n";
        assert_eq!(older(newer), text);
    }

    #[test]
    fn a_scraper_says_what_it_reads() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("*/*", Format::Prometheus),
            ("text/html", Format::Prometheus),
        ] {
            let headers = [(ACCEPT, accept.parse().unwrap())].into_iter().collect();
            assert_eq!(Format::wanted(&headers), format, "{accept}");
        }
    }
}
