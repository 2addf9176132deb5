mod poll;
mod rule;
