package lexical

import "testing"

func TestStatsReadBack(t *testing.T) {
	s := NewStats()
	s.Add([]string{"a", "b", "a"})
	s.Add([]string{"b", ""})
	s.Add(nil)
	s.Remove([]string{"b", ""})
	b := s.AppendTo([]byte("before"))[len("before"):]
	got, err := ReadStats(b)
	if err != nil {
		t.Fatal(err)
	}
	got.Add([]string{"b", "c"})
	s.Add([]string{"b", "c"})
	if got.n != s.n || got.length != s.length || got.DF("b") != 2 || got.DF("c") != 1 || got.DF("a") != 1 || got.DF("") != 0 || got.Terms() != s.Terms() {
		t.Errorf("%+v, want %+v", got, s)
	}
	for n := range b {
		if _, err := ReadStats(b[:n]); err == nil {
			t.Errorf("%d of %d bytes were taken for all", n, len(b))
		}
	}
	if _, err := ReadStats(append(b, 0)); err == nil {
		t.Error("a byte too many was not noticed")
	}
}

func FuzzReadStats(f *testing.F) {
	s := NewStats()
	s.Add([]string{"a", "b"})
	f.Add(s.AppendTo(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1, 200})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ReadStats(b); err == nil {
			if again, err := ReadStats(s.AppendTo(nil)); err != nil || again.Terms() != s.Terms() || again.N() != s.N() {
				t.Errorf("%v", err)
			}
		}
	})
}
