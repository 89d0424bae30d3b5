package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Encode is the policy as data, for another process of the same binary: reading it takes
// neither YAML nor CEL, and a hundredth of the time. The source isn't in it.
func (r *Rules) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(&r.spec); err != nil {
		return nil, fmt.Errorf("encode policy %q: %w", r.spec.Name, err)
	}
	return b.Bytes(), nil
}

// Decode reads what Encode wrote.
func Decode(data []byte) (*Rules, error) {
	var s Spec
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("decode policy: %w", err)
	}
	return New(s)
}
