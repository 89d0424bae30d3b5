package policy

import "testing"

func TestFits(t *testing.T) {
	alice := &Who{User: "alice", UID: 1000, Groups: []string{"staff", "dev"}, Image: "reg.example/team/app:1", Labels: map[string]string{"app": "x", "tier": "db"}, Cgroup: "/user.slice/a"}
	nobody := &Who{UID: 65534}
	for _, c := range []struct {
		name        string
		s           Selector
		alice, none bool
	}{
		{"all", Selector{}, true, true},
		{"user", Selector{Users: []string{"bob", "alice"}}, true, false},
		{"uid", Selector{Users: []string{"1000"}}, true, false},
		{"nobody's uid", Selector{Users: []string{"65534"}}, false, true},
		{"another user", Selector{Users: []string{"bob"}}, false, false},
		{"group", Selector{Groups: []string{"dev"}}, true, false},
		{"user and another group", Selector{Users: []string{"alice"}, Groups: []string{"root"}}, false, false},
		{"image", Selector{Images: []string{"reg.example/team/app:1"}}, true, false},
		{"images", Selector{Images: []string{"other/*", "reg.example/*"}}, true, false},
		{"images of a name", Selector{Images: []string{"*/app:*"}}, true, false},
		{"images twice", Selector{Images: []string{"reg*team*app*:1"}}, true, false},
		{"any image", Selector{Images: []string{"*"}}, true, false},
		{"overlapping", Selector{Images: []string{"reg.example/team/app:1*1"}}, false, false},
		{"out of order", Selector{Images: []string{"*app*team*"}}, false, false},
		{"label", Selector{Labels: map[string]string{"app": "x"}}, true, false},
		{"labels", Selector{Labels: map[string]string{"app": "x", "tier": "web"}}, false, false},
		{"empty label", Selector{Labels: map[string]string{"none": ""}}, false, false},
		{"cgroup", Selector{Cgroups: []string{"/user.slice/a"}}, true, false},
		{"cgroup above", Selector{Cgroups: []string{"/system.slice", "/user.slice/"}}, true, false},
		{"cgroup with that beginning", Selector{Cgroups: []string{"/user"}}, false, false},
		{"root cgroup", Selector{Cgroups: []string{"/"}}, true, false},
	} {
		if got := c.s.Fits(alice); got != c.alice {
			t.Errorf("%s: fits alice: %v", c.name, got)
		}
		if got := c.s.Fits(nobody); got != c.none {
			t.Errorf("%s: fits nobody: %v", c.name, got)
		}
	}
	first, second := &Rules{spec: Spec{Name: "a", Selector: Selector{Users: []string{"bob"}}}}, &Rules{spec: Spec{Name: "b"}}
	if got := Select([]*Rules{first, second}, alice); got != second {
		t.Errorf("selected %v", got)
	}
	if got := Select([]*Rules{first}, alice); got != nil {
		t.Errorf("selected %v", got)
	}
}
