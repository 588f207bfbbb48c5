//! A picture as places: boxes, words, lines.

/// A picture, ready to draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// Width of all of it.
    pub width: i32,
    /// Height of all of it.
    pub height: i32,
    /// Boxes, what contains before what is contained. One for each node of the graph, in its order.
    pub boxes: Vec<Placed>,
    /// Lines, in the order in which they are drawn.
    pub wires: Vec<Wire>,
    /// Where the path is stopped.
    pub stop: Option<(i32, i32)>,
    /// The words beside it.
    pub label: Option<Label>,
    /// What is written above all boxes.
    pub caption: Vec<Text>,
}

/// A box with its words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placed {
    /// Its place.
    pub rect: Rect,
    /// Its words.
    pub texts: Vec<Text>,
}

/// Words beside a stop, in a box of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Its place.
    pub rect: Rect,
    /// Its words.
    pub texts: Vec<Text>,
}

/// A rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left.
    pub x: i32,
    /// Top.
    pub y: i32,
    /// Width.
    pub w: i32,
    /// Height.
    pub h: i32,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// Left.
    pub x: i32,
    /// Base line.
    pub y: i32,
    /// How it looks.
    pub face: Face,
    /// What it says.
    pub text: String,
}

/// How a text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// A name.
    Name,
    /// All else.
    Detail,
    /// A good verdict.
    Good,
    /// A bad one.
    Bad,
    /// Neither: it depends, or nobody knows.
    Open,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    /// Its corners.
    pub points: Vec<(i32, i32)>,
    /// What it stands for.
    pub kind: WireKind,
    /// Whether it ends here, with an arrow.
    pub ends: bool,
}

/// What a line stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireKind {
    /// A route.
    Route,
    /// A leg that passes.
    Passes,
    /// A leg that passes, of a path about which nobody knows.
    Unknown,
    /// A leg that is stopped.
    Stopped,
}

impl Rect {
    /// The right end.
    pub fn right(&self) -> i32 {
        self.x + self.w
    }

    /// The lower end.
    pub fn bottom(&self) -> i32 {
        self.y + self.h
    }
}

impl Text {
    /// Width by the table: of all fonts of one width in use, none is wider.
    pub fn width(&self) -> i32 {
        text_width(&self.text)
    }
}

/// Widths of 12-pixel characters are at most 0.62 em in the fonts of one width in use.
pub fn text_width(text: &str) -> i32 {
    (text.chars().count() as i32 * 745 + 99) / 100
}
