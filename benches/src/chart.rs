// This file is Copyright its original authors, visible in version control history.
//
// This file is licensed under the Apache License, Version 2.0 <LICENSE-APACHE or
// http://www.apache.org/licenses/LICENSE-2.0> or the MIT license <LICENSE-MIT or
// http://opensource.org/licenses/MIT>, at your option.

//! A chart of lines, as SVG: no more than the docs need.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 130.0;
const COLOURS: [&str; 7] =
	["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#34495e", "#7f8c8d"];

/// A line: its name, and its points.
pub type Line = (String, Vec<(f64, f64)>);

/// Lines over axes that are both logarithmic.
pub fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
	let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
	let span = |of: fn((f64, f64)) -> f64| {
		let values = points().map(of).map(|v| v.max(1.0).log10());
		let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
		(low.floor(), high.ceil().max(low.floor() + 1.0))
	};
	let (x_low, x_high) = span(|p| p.0);
	let (y_low, y_high) = span(|p| p.1);
	let x =
		|v: f64| LEFT + (v.max(1.0).log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
	let y = |v: f64| {
		HEIGHT - BOTTOM - (v.max(1.0).log10() - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)
	};
	let mut svg = format!(
		"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
		 font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" \
		 fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{title}</text>\n"
	);
	let mut text = |x: f64, y: f64, anchor: &str, what: &str| {
		let _ =
			writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{what}</text>");
	};
	for power in x_low as i32..=x_high as i32 {
		text(x(10f64.powi(power)), HEIGHT - BOTTOM + 16.0, "middle", &short(10f64.powi(power)));
	}
	for power in y_low as i32..=y_high as i32 {
		text(LEFT - 6.0, y(10f64.powi(power)) + 4.0, "end", &short(10f64.powi(power)));
	}
	text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6.0, "middle", x_name);
	text(4.0, TOP - 2.0, "start", y_name);
	// Names stand where their lines end, and no closer than their height.
	let mut names: Vec<(f64, &str, &str)> = lines
		.iter()
		.zip(COLOURS.iter().cycle())
		.filter_map(|((name, points), colour)| {
			Some((y(points.last()?.1) + 4.0, name.as_str(), *colour))
		})
		.collect();
	names.sort_by(|a, b| a.0.total_cmp(&b.0));
	let mut above = f64::MIN;
	for (at, name, colour) in names {
		above = at.max(above + 12.0);
		let x = WIDTH - RIGHT + 8.0;
		let _ =
			writeln!(svg, "<text x=\"{x:.0}\" y=\"{above:.0}\" fill=\"{colour}\">{name}</text>");
	}
	for power in y_low as i32..=y_high as i32 {
		let at = y(10f64.powi(power));
		let _ = writeln!(
			svg,
			"<line x1=\"{LEFT}\" y1=\"{at:.0}\" x2=\"{:.0}\" y2=\"{at:.0}\" stroke=\"#ddd\"/>",
			WIDTH - RIGHT
		);
	}
	for (n, (_, points)) in lines.iter().enumerate() {
		let path: Vec<String> =
			points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
		let _ = writeln!(
			svg,
			"<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
			path.join(" "),
			COLOURS[n % COLOURS.len()]
		);
	}
	svg.push_str("</svg>\n");
	svg
}

fn short(value: f64) -> String {
	match value {
		v if v >= 1e6 => format!("{:.0}M", v / 1e6),
		v if v >= 1e3 => format!("{:.0}k", v / 1e3),
		v => format!("{v:.0}"),
	}
}
