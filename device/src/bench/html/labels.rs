//! Labels next to points that run neither into each other nor into points.

use cxl_cram_kit::html::markup::{Anchor, text_width};
use cxl_cram_kit::html::plot::Area;

/// Height of a line of text in pixels.
const HEIGHT: f64 = 13.0;

/// A label that found its place.
#[derive(Debug, PartialEq)]
pub(super) struct Placed {
    /// Which of the labels it is.
    pub(super) index: usize,
    /// Its base line.
    pub(super) at: (f64, f64),
    /// How it stands there.
    pub(super) anchor: Anchor,
}

#[derive(Clone, Copy, Debug)]
struct Rect {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Rect {
    fn around((x, y): (f64, f64), radius: f64) -> Self {
        Self { left: x - radius, right: x + radius, top: y - radius, bottom: y + radius }
    }

    fn of_text((x, y): (f64, f64), anchor: Anchor, text: &str) -> Self {
        let width = text_width(text);
        let left = match anchor {
            Anchor::Start => x,
            Anchor::Middle => x - width / 2.0,
            Anchor::End => x - width,
        };
        Self { left, right: left + width, top: y - HEIGHT + 3.0, bottom: y + 3.0 }
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn inside(&self, area: Area) -> bool {
        self.left >= area.left && self.right <= area.right && self.top >= area.top && self.bottom <= area.bottom
    }
}

/// Places the labels in the order given, the first having the widest choice; none crosses `line`. One that fits nowhere
/// is left out: its point still answers to the pointer, and the table names it.
pub(super) fn place(labels: &[(String, (f64, f64))], line: &[(f64, f64)], area: Area) -> Vec<Placed> {
    let mut taken: Vec<Rect> = labels.iter().map(|(_, at)| Rect::around(*at, 6.0)).collect();
    taken.extend(line.windows(2).flat_map(|ends| along(ends[0], ends[1])).map(|at| Rect::around(at, 2.0)));
    let mut placed = Vec::new();
    for (index, (text, (x, y))) in labels.iter().enumerate() {
        let places = [
            ((x + 9.0, y - 6.0), Anchor::Start),
            ((x + 10.0, y + 4.0), Anchor::Start),
            ((x + 9.0, y + 14.0), Anchor::Start),
            ((*x, y - 10.0), Anchor::Middle),
            ((x - 9.0, y - 6.0), Anchor::End),
            ((x - 10.0, y + 4.0), Anchor::End),
            ((*x, y + 19.0), Anchor::Middle),
            ((x - 9.0, y + 14.0), Anchor::End),
        ];
        let free = places.into_iter().find_map(|(at, anchor)| {
            let rect = Rect::of_text(at, anchor, text);
            (rect.inside(area) && !taken.iter().any(|other| rect.meets(other))).then_some((at, anchor, rect))
        });
        if let Some((at, anchor, rect)) = free {
            taken.push(rect);
            placed.push(Placed { index, at, anchor });
        }
    }
    placed
}

/// Points on a line, 4 pixels apart.
fn along(from: (f64, f64), to: (f64, f64)) -> impl Iterator<Item = (f64, f64)> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    // A drawing is a few thousand pixels at most; the cast saturates.
    let steps = (dx.hypot(dy) / 4.0).ceil().clamp(1.0, 1000.0) as u32;
    (0..=steps).map(move |i| {
        let share = f64::from(i) / f64::from(steps);
        (from.0 + share * dx, from.1 + share * dy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AREA: Area = Area { left: 0.0, right: 300.0, top: 0.0, bottom: 200.0 };

    #[test]
    fn labels_meet_neither_points_nor_each_other_and_stay_inside() {
        let labels: Vec<_> = (0..30)
            .map(|i| (format!("point {i}"), (150.0 + f64::from(i * 37 % 60), 100.0 + f64::from(i * 23 % 40))))
            .collect();
        let placed = place(&labels, &[], AREA);
        assert!(placed.len() > 4, "{placed:?}");
        let rects: Vec<_> = placed.iter().map(|p| Rect::of_text(p.at, p.anchor, &labels[p.index].0)).collect();
        for (i, rect) in rects.iter().enumerate() {
            assert!(rect.inside(AREA));
            assert!(!rects[i + 1..].iter().any(|other| rect.meets(other)));
            assert!(!labels.iter().any(|(_, at)| rect.meets(&Rect::around(*at, 6.0))));
        }
    }

    #[test]
    fn a_point_in_the_corner_is_labelled_inward() {
        let placed = place(&[("corner".to_owned(), (295.0, 5.0))], &[], AREA);
        assert_eq!(placed.len(), 1);
        assert!(Rect::of_text(placed[0].at, placed[0].anchor, "corner").inside(AREA));
    }

    #[test]
    fn a_label_does_not_cross_the_line() {
        let line = [(100.0, 100.0), (250.0, 60.0)];
        let placed = place(&[("point".to_owned(), (100.0, 100.0))], &line, AREA);
        let rect = Rect::of_text(placed[0].at, placed[0].anchor, "point");
        assert!(!along(line[0], line[1]).any(|at| rect.meets(&Rect::around(at, 1.0))), "{placed:?}");
    }
}
