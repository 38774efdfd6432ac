package door

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Version is the version of a module that was built in, and that of Go: `1.22.2, go1.26.0`.
func Version(module string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, built := range info.Deps {
		if built.Path == module {
			return fmt.Sprintf("%s, %s", strings.TrimPrefix(built.Version, "v"), info.GoVersion)
		}
	}
	return "unknown, " + info.GoVersion
}
