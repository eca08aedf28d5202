//! What the terminal commands share: the tree as the API tells it, text with style, figures for people, the terminal.

pub(super) mod figures;
pub(super) mod nodes;
pub(super) mod text;
