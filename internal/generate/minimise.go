package generate

import "bytes"

// Smaller lists requests that are simpler than r in one respect each, the largest steps
// first. Whoever knows which of them still show what r shows goes on with one of these,
// until none is left.
func (r *Request) Smaller() (all []*Request) {
	try := func(change func(c *Request)) {
		c := r.Clone()
		c.Seed = r.Seed
		change(c)
		all = append(all, c)
	}
	for i := range r.Steps {
		try(func(c *Request) { c.Steps = append(c.Steps[:i], c.Steps[i+1:]...) })
	}
	for i := range r.Pieces {
		try(func(c *Request) { c.Pieces = append(c.Pieces[:i], c.Pieces[i+1:]...) })
	}
	for i := range r.Refs {
		try(func(c *Request) { c.Refs = append(c.Refs[:i], c.Refs[i+1:]...) })
	}
	if r.Fill != 0 {
		try(func(c *Request) { c.Fill = 0 })
	}
	row := r.Row()
	at, size := r.Attr()
	if len(r.Args) == 2 && Slots(row)[1] == "size" && r.Args[1] != uint64(row.LastEnd) {
		try(func(c *Request) { c.Args[1] = uint64(row.LastEnd) })
	}
	// Fields, where they are in a piece.
	for p := range r.Pieces {
		piece := &r.Pieces[p]
		zero := func(from, n uint64) {
			if from < piece.Addr || from+n > piece.Addr+uint64(len(piece.Data)) {
				return
			}
			o := from - piece.Addr
			if bytes.Equal(piece.Data[o:o+n], make([]byte, n)) {
				return
			}
			try(func(c *Request) { copy(c.Pieces[p].Data[o:o+n], make([]byte, n)) })
		}
		if piece.Addr <= at && at < piece.Addr+uint64(len(piece.Data)) {
			for i := range row.Fields {
				if f := &row.Fields[i]; f.Offset+f.Size <= size {
					zero(at+uint64(f.Offset), uint64(f.Size))
				}
			}
			continue
		}
		for n := uint64(len(piece.Data)) / 2; n >= 4; n /= 2 {
			try(func(c *Request) { c.Pieces[p].Data = c.Pieces[p].Data[:n] })
			zero(piece.Addr, n)
			zero(piece.Addr+n, n)
		}
	}
	return all
}
