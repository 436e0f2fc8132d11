//! Columns of text, as Go's tabwriter aligns them.

/// Returns rows whose cells, but for the last, are as wide as the widest of their column and
/// `padding` blanks more.
pub(super) fn table(rows: &[Vec<String>], padding: usize) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len());
        let widths = cells.map(|row| row[column].chars().count());
        widths.max().unwrap_or(0) + padding
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let missing = widths[column].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', missing));
            }
        }
        out.push('\n');
    }
    out
}

/// Returns a row.
pub(super) fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(&["A", "LONG", "C"]), row(&["abc", "é", ""])];
        assert_eq!(table(&rows, 1), "A   LONG C\nabc é    \n");
    }
}
