# For this project's own targets only; never exported.
add_library(erofs_oci_dev INTERFACE)
target_link_libraries(erofs_oci_dev INTERFACE erofs_oci)
target_compile_options(
  erofs_oci_dev INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
                          -Wnon-virtual-dtor -Wold-style-cast -Wcast-align -Woverloaded-virtual -Werror)
set(CMAKE_CXX_EXTENSIONS OFF)
